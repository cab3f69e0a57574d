// Lookup and decoder for one slab of points at a time, forwards and backwards.
//
// A slab is L points. Numbers lie as [channel][point], so that the lanes of a vector are points and the two matrix
// products broadcast weights; only the lookup, whose texels are contiguous in channels, works the other way round.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "job.h"
#include "lanes.h"

namespace gi {

template <class V> struct Decoder {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;

    const Job& job;
    const int taps_per_plane, taps, C, CP, H, HP, F;
    const Vec beta;
    std::vector<S> w1, w1t, w2, w2t, row0, b1, b2;  // packed by blocks; t: transposed, for the way back
    struct Place {
        std::vector<S> position;      // [3][L]
        std::vector<int32_t> index;   // [taps][L] offsets into the planes of one batch entry
        std::vector<S> weight;        // [taps][L]
        std::vector<S> axis_weights;  // [P][dims][2][L]: the factors of weight, for the way back
    };
    Place here, ahead;                          // of this slab, and of the one expected next
    int expected = -1;                          // number of the latter
    bool fetched = true;                        // its texels are on their way to the caches
    std::vector<S> rows, columns;               // [L][CP] and [CP][L] scratch
    std::vector<S> g_pre, g_x, h_rows;          // [HP][L], [F + 1][L], [L][HP]
    // gradients of this worker, laid out [rows][padded columns]
    std::vector<S> g_w1, g_w2, g_b1, g_b2;
    int CW;

    static int pad(int n) { return (n + L - 1) / L * L; }

    explicit Decoder(const Job& j, bool backward)
        : job(j), taps_per_plane(j.depth ? 8 : 4), taps(taps_per_plane * j.planes), C(j.channels),
          CP(j.channels_padded), H(j.hidden), HP(pad(j.hidden)), F(j.features), beta(V::set(*(const S*)j.beta)) {
        const S *a = (const S*)j.w1, *b = (const S*)j.w2;
        pack(w1, H, C, [&](int r, int c) { return a[r * C + c]; });
        pack(w2, F, H, [&](int r, int c) { return b[(r + 1) * H + c]; });
        row0.assign(b, b + H);
        b1.assign((const S*)j.b1, (const S*)j.b1 + H);
        b2.assign((const S*)j.b2, (const S*)j.b2 + F + 1);
        for (Place* p : {&here, &ahead}) {
            p->index.resize(size_t(taps) * L);
            p->weight.resize(size_t(taps) * L);
            p->position.resize(3 * L);
            if (backward) p->axis_weights.resize(size_t(j.planes) * 6 * L);
        }
        CW = pad(CP);
        rows.assign(size_t(L) * CW, S(0));
        columns.assign(size_t(CW) * L, S(0));
        if (backward) {
            pack(w1t, C, H, [&](int r, int c) { return a[c * C + r]; });
            pack(w2t, H, F, [&](int r, int c) { return b[(c + 1) * H + r]; });
            g_pre.assign(size_t(HP) * L, S(0));
            g_x.assign(size_t(F + 1) * L, S(0));
            h_rows.assign(size_t(L) * HP, S(0));
            g_w1.assign(size_t(H) * CW, S(0));
            g_w2.assign(size_t(F + 1) * HP, S(0));
            g_b1.assign(H, S(0));
            g_b2.assign(F + 1, S(0));
        }
    }

    template <class Get> static void pack(std::vector<S>& out, int rows, int columns, Get get) {
        out.resize(size_t(rows) * columns);
        in_blocks(rows, [&](auto block, int j) {
            for (int k = 0; k < columns; ++k)
                for (int i = 0; i < block.value; ++i)
                    out[size_t(j) * columns + size_t(k) * block.value + i] = get(j + i, k);
        });
    }

    template <int JB> static inline void product(const S* w, const S* x, int inner, Vec (&total)[JB][NV]) {
        Vec sum[JB][NV];  // what the caller can point at, GCC would write back at every step
        GI_UNROLL for (int j = 0; j < JB; ++j)
            GI_UNROLL for (int n = 0; n < NV; ++n) sum[j][n] = total[j][n];
        for (int k = 0; k < inner; ++k) {
            Vec in[NV];
            GI_UNROLL for (int n = 0; n < NV; ++n) in[n] = V::load(x + k * L + n * W);
            GI_UNROLL for (int j = 0; j < JB; ++j) {
                Vec factor = V::broadcast(w + k * JB + j);
                GI_UNROLL for (int n = 0; n < NV; ++n) sum[j][n] = fma_(factor, in[n], sum[j][n]);
            }
        }
        GI_UNROLL for (int j = 0; j < JB; ++j)
            GI_UNROLL for (int n = 0; n < NV; ++n) total[j][n] = sum[j][n];
    }

    // Makes `here` the slab of this number, whose points put(number, position) writes. Where `next` is given, that slab
    // is expected: its texels are fetched while this one is decoded.
    template <class Put> inline void go(int number, int next, Put&& put) {
        if (expected == number) {
            std::swap(here, ahead);
            expected = -1;
        } else {
            put(number, here.position.data());
            locate(here);
        }
        if (next < 0 || next == expected) return;
        put(next, ahead.position.data());
        locate(ahead);
        expected = next;
        fetched = false;
    }
    // Fetches the share of the expected texels that falls to hidden units j .. j + many.
    inline void fetch(const S* planes, int j, int many) const {
        constexpr int line = 64 / sizeof(S);
        const int pairs = taps * L;
        for (int i = pairs * j / H; i < pairs * (j + many) / H; ++i)
            for (int c = 0; c < CP; c += line) V::prefetch(planes + ahead.index[i] + c);
    }

    // Texels and weights of the points of a slab.
    inline void locate(Place& to) const { job.depth ? locate_in<3>(to) : locate_in<2>(to); }
    template <int DIMS> inline void locate_in(Place& to) const {
        constexpr int TAPS = 1 << DIMS;
        const S *maps = (const S*)job.maps, *position = to.position.data();
        int32_t* index = to.index.data();
        S *weight = to.weight.data(), *axis_weights = to.axis_weights.empty() ? nullptr : to.axis_weights.data();
        const int size[3] = {job.width, job.height, job.depth};
        const Vec share = V::set(S(1) / S(job.planes));
        const int32_t plane = int32_t(job.plane_stride), texel = int32_t(job.texel_stride);
        for (int p = 0; p < job.planes; ++p, maps += 9) {
            for (int n = 0; n < NV; ++n) {
                const Vec x = V::load(position + n * W), y = V::load(position + L + n * W);
                const Vec z = V::load(position + 2 * L + n * W);
                Taps<Vec> t[DIMS];
                GI_UNROLL for (int d = 0; d < DIMS; ++d) {
                    Vec at = fma_(z, V::set(maps[6 + d]), fma_(y, V::set(maps[3 + d]), x * V::set(maps[d])));
                    t[d] = taps_of(at, size[d]);
                    if (axis_weights) {
                        V::store(axis_weights + ((p * 3 + d) * 2) * L + n * W, t[d].weight_low);
                        V::store(axis_weights + ((p * 3 + d) * 2 + 1) * L + n * W, t[d].weight_high);
                    }
                }
                GI_UNROLL for (int k = 0; k < TAPS; ++k) {
                    Vec w = (k & 1 ? t[0].weight_high : t[0].weight_low) * (k & 2 ? t[1].weight_high : t[1].weight_low);
                    auto i = V::to_index(k & 2 ? t[1].high : t[1].low);
                    if constexpr (DIMS == 3) {
                        w = w * (k & 4 ? t[2].weight_high : t[2].weight_low);
                        i = V::multiply_add(V::to_index(k & 4 ? t[2].high : t[2].low), size[1], i);
                    }
                    i = V::multiply_add(i, size[0], V::to_index(k & 1 ? t[0].high : t[0].low));
                    i = V::multiply_add(i, texel, V::set_index(p * plane));
                    const int at = (p * TAPS + k) * L + n * W;
                    V::store_index(index + at, i);
                    V::store(weight + at, w * share);
                }
            }
        }
    }

    static Taps<Vec> taps_of(Vec at, int size) { return gi::taps(at, V::set(S(size))); }

    const S* planes_of(int64_t b) const { return (const S*)job.plane_data + b * job.entry_stride; }

    // Mean features of the slab: to[L][CW].
    inline void gather(const S* planes, S* to) {
        constexpr int E = L < 4 ? 1 : 4;  // points at once: one sum alone waits for its own last addition
        for (int l = 0; l < L; l += E) {
            int c = 0;
            for (; c + 4 * W <= CP; c += 4 * W) blend<E, 4>(planes + c, l, to + size_t(l) * CW + c);
            for (; c + 2 * W <= CP; c += 2 * W) blend<E, 2>(planes + c, l, to + size_t(l) * CW + c);
            for (; c + W <= CP; c += W) blend<E, 1>(planes + c, l, to + size_t(l) * CW + c);
        }
    }
    template <int E, int N> inline void blend(const S* planes, int l, S* to) {
        Vec sum[E][N];
        for (int e = 0; e < E; ++e)
            for (int i = 0; i < N; ++i) sum[e][i] = V::set(S(0));
        for (int k = 0; k < taps; ++k)
            for (int e = 0; e < E; ++e) {
                const S* texel = planes + here.index[k * L + l + e];
                Vec w = V::broadcast(&here.weight[k * L + l + e]);
                for (int i = 0; i < N; ++i) sum[e][i] = fma_(w, V::load(texel + i * W), sum[e][i]);
            }
        for (int e = 0; e < E; ++e)
            for (int i = 0; i < N; ++i) V::store(to + e * CW + i * W, sum[e][i]);
    }

    static inline void turn(const S* in, int in_stride, int count, int width, S* out, int out_stride) {
        for (int a = 0; a < count; a += W)
            for (int b = 0; b < width; b += W) V::transpose(in + a * in_stride + b, in_stride, out + b * out_stride + a, out_stride);
    }

    // Raw density or distance of the points `here` to raw[L]; hidden [H][L] and features [L][CW] are kept.
    inline void look(const S* planes, bool march, S* hidden, S* kept, S* raw) {
        const auto& position = here.position;
        gather(planes, kept);
        turn(kept, CW, L, CP, columns.data(), L);
        Vec out[NV];
        for (int n = 0; n < NV; ++n) out[n] = V::set(b2[0]);
        in_blocks(H, [&](auto block, int j) {
            constexpr int JB = decltype(block)::value;
            Vec sum[JB][NV];
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n) sum[i][n] = V::set(b1[j + i]);
            if (!fetched) fetch(planes, j, JB);
            product<JB>(&w1[size_t(j) * C], columns.data(), C, sum);
            const Softplus<Vec> softplus;
            const S* row = &row0[j];
            GI_UNROLL for (int i = 0; i < JB; ++i)
                GI_UNROLL for (int n = 0; n < NV; ++n) {
                    Vec h = softplus(sum[i][n]);
                    V::store(hidden + (j + i) * L + n * W, h);
                    out[n] = fma_(V::broadcast(row + i), h, out[n]);
                }
        });
        fetched = true;
        for (int n = 0; n < NV; ++n) {
            Vec x = V::load(&position[n * W]), y = V::load(&position[L + n * W]), z = V::load(&position[2 * L + n * W]);
            if (job.density == DENSITY_SDF) {
                Vec length = sqrt_(fma_(x, x, fma_(y, y, fma_(z, z, V::set(S(1e-20))))));
                out[n] = fma_(V::set(S(job.distance_scale)), out[n], length - V::set(S(job.distance_radius)));
            }
            if (march && job.crop) {
                Vec limit = V::set(S(job.crop_limit));
                out[n] = select_((abs_(x) <= limit) & (abs_(z) <= limit), out[n], V::set(S(-1e3)));
            }
            V::store(raw + n * W, out[n]);
        }
    }

    // Activated features of a slab, to [F][L].
    inline void colours(const S* hidden, S* to) const {
        if (job.activation == ACTIVATION_SIGMOID)
            return second_layer(hidden, to, [sigmoid = Sigmoid<Vec>()](Vec x) { return widened(sigmoid(x)); });
        second_layer(hidden, to, [kind = job.activation](Vec x) { return activate(kind, x); });
    }
    template <class Rule> inline void second_layer(const S* hidden, S* to, const Rule& rule) const {
        in_blocks(F, [&](auto block, int j) {
            constexpr int JB = decltype(block)::value;
            Vec sum[JB][NV];
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n) sum[i][n] = V::set(b2[j + i + 1]);
            product<JB>(&w2[size_t(j) * H], hidden, H, sum);
            const Rule held = rule;
            GI_UNROLL for (int i = 0; i < JB; ++i)
                GI_UNROLL for (int n = 0; n < NV; ++n) V::store(to + (j + i) * L + n * W, held(sum[i][n]));
        });
    }

    // out[rows][stride] += x[rows][L] times y[L][stride]
    static inline void outer(const S* x, int rows, const S* y, int stride, S* out) {
        for (int c = 0; c < stride; c += L)
            in_blocks(rows, [&](auto block, int r) {
                constexpr int JB = decltype(block)::value;
                Vec sum[JB][NV];
                for (int i = 0; i < JB; ++i)
                    for (int n = 0; n < NV; ++n) sum[i][n] = V::load(out + size_t(r + i) * stride + c + n * W);
                for (int l = 0; l < L; ++l) {
                    Vec in[NV];
                    for (int n = 0; n < NV; ++n) in[n] = V::load(y + l * stride + c + n * W);
                    for (int i = 0; i < JB; ++i) {
                        Vec factor = V::broadcast(x + (r + i) * L + l);
                        for (int n = 0; n < NV; ++n) sum[i][n] = fma_(factor, in[n], sum[i][n]);
                    }
                }
                for (int i = 0; i < JB; ++i)
                    for (int n = 0; n < NV; ++n) V::store(out + size_t(r + i) * stride + c + n * W, sum[i][n]);
            });
    }

    // The way back through one slab. g_x rows 1.. hold the gradient of the features before their activation, g_raw
    // that of raw. Adds to g_planes and the worker's weight gradients, and to g_position [3][L] where not null.
    inline void back(const S* planes, S* g_planes, bool march, const S* hidden, const S* kept, const S* g_raw,
                     bool weights, S* g_position) {
        const auto& position = here.position;
        Vec g0[NV];
        for (int n = 0; n < NV; ++n) {
            Vec x = V::load(&position[n * W]), y = V::load(&position[L + n * W]), z = V::load(&position[2 * L + n * W]);
            Vec g = V::load(g_raw + n * W);
            if (march && job.crop) {
                Vec limit = V::set(S(job.crop_limit));
                g = select_((abs_(x) <= limit) & (abs_(z) <= limit), g, V::set(S(0)));
            }
            if (job.density == DENSITY_SDF) {
                if (g_position) {
                    Vec part = g / sqrt_(fma_(x, x, fma_(y, y, fma_(z, z, V::set(S(1e-20))))));
                    V::store(g_position + n * W, V::load(g_position + n * W) + part * x);
                    V::store(g_position + L + n * W, V::load(g_position + L + n * W) + part * y);
                    V::store(g_position + 2 * L + n * W, V::load(g_position + 2 * L + n * W) + part * z);
                }
                g = g * V::set(S(job.distance_scale));
            }
            g0[n] = g;
            V::store(&g_x[n * W], g);
        }
        in_blocks(H, [&](auto block, int j) {
            constexpr int JB = decltype(block)::value;
            Vec sum[JB][NV];
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n) sum[i][n] = g0[n] * V::set(row0[j + i]);
            product<JB>(&w2t[size_t(j) * F], &g_x[L], F, sum);
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n)
                    V::store(&g_pre[(j + i) * L + n * W], sum[i][n] * softplus_slope(V::load(hidden + (j + i) * L + n * W)));
        });
        if (weights) {
            turn(hidden, L, H / W * W, L, h_rows.data(), HP);
            for (int j = H / W * W; j < H; ++j)
                for (int l = 0; l < L; ++l) h_rows[l * HP + j] = hidden[j * L + l];
            outer(g_x.data(), F + 1, h_rows.data(), HP, g_w2.data());
            outer(g_pre.data(), H, kept, CW, g_w1.data());
            for (int f = 0; f <= F; ++f) g_b2[f] += sum_row(&g_x[f * L]);
            for (int j = 0; j < H; ++j) g_b1[j] += sum_row(&g_pre[j * L]);
        }
        if (!g_planes && !g_position) return;
        in_blocks(C, [&](auto block, int j) {
            constexpr int JB = decltype(block)::value;
            Vec sum[JB][NV];
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n) sum[i][n] = V::set(S(0));
            product<JB>(&w1t[size_t(j) * H], g_pre.data(), H, sum);
            for (int i = 0; i < JB; ++i)
                for (int n = 0; n < NV; ++n) V::store(&columns[(j + i) * L + n * W], sum[i][n]);
        });
        std::fill(columns.begin() + C * L, columns.begin() + CP * L, S(0));
        turn(columns.data(), L, CP, L, rows.data(), CW);
        if (g_planes) scatter(g_planes);
        if (g_position) pull(planes, g_position);
    }

    static S sum_row(const S* p) { return V::sum(V::load(p) + V::load(p + W)); }  // NV is 2

    // g_planes += weight times rows, texel by texel.
    inline void scatter(S* g_planes) {
        for (int l = 0; l < L; ++l) {
            const S* from = &rows[size_t(l) * CW];
            for (int k = 0; k < taps; ++k) {
                S w = here.weight[k * L + l];
                if (w == S(0)) continue;
                Vec factor = V::set(w);
                S* texel = g_planes + here.index[k * L + l];
                for (int c = 0; c < CP; c += W) V::store(texel + c, fma_(factor, V::load(from + c), V::load(texel + c)));
            }
        }
    }

    // g_position += the gradient of the lookup by position, times rows.
    inline void pull(const S* planes, S* g_position) {
        const int dims = job.depth ? 3 : 2;
        const S size[3] = {S(job.width), S(job.height), S(job.depth)};
        for (int l = 0; l < L; ++l)
            for (int p = 0; p < job.planes; ++p) {
                S slope[3] = {0, 0, 0};
                const S* a = &here.axis_weights[size_t(p) * 6 * L + l];
                for (int k = 0; k < taps_per_plane; ++k) {
                    const S* texel = planes + here.index[(p * taps_per_plane + k) * L + l];
                    Vec s = V::set(S(0));
                    for (int c = 0; c < CP; c += W) s = fma_(V::load(texel + c), V::load(&rows[size_t(l) * CW + c]), s);
                    S dot = V::sum(s);
                    for (int d = 0; d < dims; ++d) {
                        S w = (k >> d & 1) ? S(1) : S(-1);
                        // a texel outside weighs nothing, but so does its slope
                        if (outside(p, d, k >> d & 1, l)) w = 0;
                        for (int e = 0; e < dims; ++e)
                            if (e != d) w *= a[(e * 2 + (k >> e & 1)) * L];
                        slope[d] += w * dot;
                    }
                }
                const S* m = (const S*)job.maps + p * 9;
                for (int d = 0; d < dims; ++d)
                    for (int i = 0; i < 3; ++i)
                        g_position[i * L + l] += slope[d] * size[d] * S(0.5) / S(job.planes) * m[i * 3 + d];
            }
    }
    inline bool outside(int p, int d, int high, int l) const {
        const S *m = (const S*)job.maps + p * 9 + d, *x = here.position.data() + l;
        const S size = S(d == 0 ? job.width : d == 1 ? job.height : job.depth);
        const S low = floor_((x[0] * m[0] + x[L] * m[3] + x[2 * L] * m[6] + 1) * size * S(0.5) - S(0.5)) + S(high);
        return !(low >= S(0) && low <= size - 1);
    }

    // Hands this worker's gradients over.
    void deliver() {
        add((S*)job.g_w1, H, C, g_w1.data(), CW);
        add((S*)job.g_w2, F + 1, H, g_w2.data(), HP);
        add((S*)job.g_b1, 1, H, g_b1.data(), H);
        add((S*)job.g_b2, 1, F + 1, g_b2.data(), F + 1);
    }
    static void add(S* to, int rows, int columns, const S* from, int stride) {
        if (!to) return;
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c) to[r * columns + c] += from[r * stride + c];
    }
};

}  // namespace gi
