// A tile of L neighbouring rays from end to end: coarse samples, importance, fine samples, march; and back.
#pragma once

#include <algorithm>
#include <cmath>

#include "decoder.h"

namespace gi {

template <class V> struct Marcher {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;

    const Job& job;
    Decoder<V> decoder;
    const int nc, nf, n, H, F;
    const bool backward;
    std::vector<S> ray;                                  // [8][L]: origin, direction, near, far
    std::vector<S> z, raw, coefficient;                  // [n][L] in the order of sampling
    std::vector<S> zs, raws;                             // [n][L] sorted
    std::vector<S> alpha, through, sigma, weight;        // [n - 1][L]
    std::vector<S> hidden, kept, colour;                 // [n or 2][H][L], [n or 1][L][CW], [n][F][L]
    std::vector<char> painted, promising;                // [n] has colours; [nf] fine sample near coarse weight
    std::vector<S> total;                                // [F][L]
    std::vector<S> cdf, u;
    std::vector<int32_t> order;                          // [n][L]
    std::vector<S> g_weight, g_raw, g_feature, g_ray, g_position;
    int64_t ids[L];                                      // rays of the tile; -1: none
    int64_t batch = 0;
    Vec g_beta;

    Marcher(const Job& j, bool back)
        : job(j), decoder(j, back), nc(j.coarse), nf(j.fine), n(j.coarse + j.fine), H(j.hidden), F(j.features),
          backward(back), g_beta(V::set(S(0))) {
        ray.resize(8 * L);
        for (auto* a : {&z, &raw, &coefficient, &zs, &raws}) a->resize(size_t(n) * L);
        for (auto* a : {&alpha, &through, &sigma, &weight}) a->resize(size_t(n) * L);
        hidden.resize(size_t(back ? n : 2) * H * L);
        colour.resize(size_t(n) * F * L);
        painted.resize(n);
        promising.resize(nf + 1);
        kept.assign(size_t(back ? n : 1) * L * decoder.CW, S(0));
        total.resize(size_t(F) * L + L);
        cdf.resize(size_t(nc) * L);
        u.resize(nf + 1);
        order.resize(size_t(n) * L);
        if (back) {
            g_weight.resize(size_t(n) * L);
            g_raw.resize(size_t(n) * L);
            g_feature.resize(size_t(F) * L + L);
            g_ray.resize(6 * L);
            g_position.resize(3 * L);
        }
    }

    static int64_t tile_count(const Job& job) { return job.batch * tiles_per_entry(job); }
    static int tile_side_x() { return L >= 16 ? 4 : 1; }
    static int64_t tiles_per_entry(const Job& job) {
        if (!job.image_width) return (job.rays + L - 1) / L;
        int64_t height = job.rays / job.image_width, sx = tile_side_x(), sy = L / sx;
        return (job.image_width + sx - 1) / sx * ((height + sy - 1) / sy);
    }

    // Rays of a tile. Missing ones repeat a neighbour, and are not written.
    void pick(int64_t tile) {
        int64_t per = tiles_per_entry(job);
        batch = tile / per;
        tile %= per;
        int64_t spare = -1;
        int64_t source[L];
        for (int l = 0; l < L; ++l) {
            int64_t id = -1;
            if (!job.image_width) {
                id = tile * L + l;
                if (id >= job.rays) id = -1;
            } else {  // tiles run down the columns: xz texels are then reused soonest
                int64_t height = job.rays / job.image_width, sx = tile_side_x(), sy = L / sx;
                int64_t high = (height + sy - 1) / sy;
                int64_t x = tile / high * sx + l % sx, y = tile % high * sy + l / sx;
                if (x < job.image_width && y < height) id = y * job.image_width + x;
            }
            if (id >= 0 && spare < 0) spare = id;
            ids[l] = id;
        }
        for (int l = 0; l < L; ++l) {
            source[l] = batch * job.rays + (ids[l] >= 0 ? ids[l] : spare);
            ids[l] = ids[l] >= 0 ? source[l] : -1;
        }
        for (int l = 0; l < L; ++l) {
            for (int i = 0; i < 3; ++i) {
                ray[i * L + l] = ((const S*)job.origins)[source[l] * 3 + i];
                ray[(3 + i) * L + l] = ((const S*)job.directions)[source[l] * 3 + i];
            }
            ray[6 * L + l] = ((const S*)job.near)[source[l]];
            ray[7 * L + l] = ((const S*)job.far)[source[l]];
            const S* draws = (const S*)job.u_coarse;
            for (int i = 0; i < nc; ++i)
                z[i * L + l] = draws ? draws[source[l] * nc + i] : S(job.jitter);
        }
        for (int i = 0; i < nc; ++i)
            for (int v = 0; v < NV; ++v)
                V::store(&z[i * L + v * W],
                         coarse_depth(V::load(&ray[6 * L + v * W]), V::load(&ray[7 * L + v * W]), i, nc,
                                      V::load(&z[i * L + v * W]), job.disparity != 0));
    }

    void place(int s) {
        for (int v = 0; v < NV; ++v) {
            Vec depth = V::load(&z[s * L + v * W]);
            for (int i = 0; i < 3; ++i)
                V::store(&decoder.position[i * L + v * W],
                         V::load(&ray[i * L + v * W]) + depth * V::load(&ray[(3 + i) * L + v * W]));
        }
    }
    // Two slots will do on the way forward: what all samples of a tile leave behind does not fit the nearer caches.
    S* hidden_of(int s) { return &hidden[size_t(backward ? s : s & 1) * H * L]; }
    void sample(int s) {
        place(s);
        decoder.look(decoder.planes_of(batch), true, hidden_of(s), &kept[backward ? size_t(s) * L * decoder.CW : 0],
                     &raw[s * L]);
        painted[s] = 0;
    }
    // Colours of the sample looked at last, or second to last.
    void paint(int s) {
        S* to = &colour[size_t(s) * F * L];
        decoder.colours(hidden_of(s), [&](int f, int v, Vec value) { V::store(to + f * L + v * W, value); });
        painted[s] = 1;
    }
    bool any_above(const S* values, S limit) const {
        for (int v = 0; v < NV; ++v) {
            Vec x = V::load(values + v * W);
            if (V::any(x > V::set(limit)) || !(V::sum(x) == V::sum(x))) return true;
        }
        return false;
    }
    // Whether the coarse intervals beside coarse sample s say that its colours will be wanted.
    bool shows(int s) const {
        return backward || job.skip <= 0 || (s && any_above(&weight[(s - 1) * L], S(job.skip))) ||
               (s + 1 < nc && any_above(&weight[s * L], S(job.skip)));
    }

    // One interval, between values a and b of `values` at depths `at`; returns the transmittance behind it.
    Vec interval(const S* at, const S* values, int i, int v, Vec front) {
        int a = i * L + v * W, b = a + L;
        Vec step = V::load(at + b) - V::load(at + a);
        Vec middle = (V::load(values + b) + V::load(values + a)) * V::set(S(0.5));
        Vec s = density(job.density, middle, decoder.beta);
        Vec opaque = interval_alpha(s, step);
        V::store(&sigma[a], s);
        V::store(&alpha[a], opaque);
        V::store(&through[a], front);
        V::store(&weight[a], opaque * front);
        return pass_on(front, opaque);
    }

    // Transmittance behind which nothing is looked at. A gradient by beta weighs a sample by up to 1 / beta squared.
    S unseen() const { return S(backward ? job.skip * 1e-3 : job.skip); }

    // Coarse samples front to back; in tiles where nothing more is seen the rest is left out. Returns how many.
    int look_coarse() {
        Vec front[NV];
        for (int v = 0; v < NV; ++v) front[v] = V::set(S(1));
        for (int s = 0; s < nc; ++s) {
            sample(s);
            if (!s) continue;
            S behind[L];
            for (int v = 0; v < NV; ++v) {
                front[v] = interval(z.data(), raw.data(), s - 1, v, front[v]);
                V::store(behind + v * W, front[v]);
            }
            if (shows(s - 1)) paint(s - 1);
            if (job.skip > 0 && s < nc - 1 && !any_above(behind, unseen())) {
                for (int r = s + 1; r < nc; ++r) {
                    std::copy(&raw[s * L], &raw[s * L] + L, &raw[r * L]);
                    std::fill(&weight[(r - 1) * L], &weight[(r - 1) * L] + L, S(0));
                    painted[r] = 0;
                }
                if (shows(s)) paint(s);
                return s + 1;
            }
        }
        if (shows(nc - 1)) paint(nc - 1);
        return nc;
    }

    void draw_fine() {
        const int bins = nc - 1, last = bins - 2;  // cdf has entries 0 .. last
        for (int v = 0; v < NV; ++v) {
            auto w = [&](int i) { return V::load(&weight[i * L + v * W]); };
            Vec sum = V::set(S(0));
            for (int i = 1; i < bins - 1; ++i) {
                Vec mass = smooth_weight(w(i - 1), w(i), w(i + 1)) + V::set(S(1e-5));
                V::store(&cdf[i * L + v * W], mass);
                sum = sum + mass;
            }
            Vec run = V::set(S(0));
            V::store(&cdf[v * W], run);
            for (int i = 1; i < bins - 1; ++i) {
                run = run + V::load(&cdf[i * L + v * W]) / sum;
                V::store(&cdf[i * L + v * W], run);
            }
        }
        std::fill(promising.begin(), promising.end(), char(backward || job.skip <= 0));
        const S* draws = (const S*)job.u_fine;
        for (int l = 0; l < L; ++l) {
            int64_t source = ids[l];
            for (int i = 0; i < nf; ++i) u[i] = draws && source >= 0 ? draws[source * nf + i] : (S(i) + S(0.5)) / S(nf);
            if (draws) std::sort(u.begin(), u.begin() + nf);
            int right = 0;  // entries of cdf that are <= u
            for (int i = 0; i < nf; ++i) {
                while (right <= last && !(cdf[right * L + l] > u[i])) ++right;
                int below = std::max(right - 1, 0), above = std::min(right, last);
                S low = cdf[below * L + l], span = cdf[above * L + l] - low;
                if (!(span >= S(1e-5))) span = S(1);
                S z0 = (z[below * L + l] + z[(below + 1) * L + l]) * S(0.5);
                S z1 = (z[above * L + l] + z[(above + 1) * L + l]) * S(0.5);
                S at = z0 + (u[i] - low) / span * (z1 - z0);
                // bin b lies between the middles of intervals b and b + 1
                promising[i] |= !(std::max(weight[below * L + l], weight[(below + 1) * L + l]) <= S(job.skip));
                int k = nc + i;
                for (; k > nc && z[(k - 1) * L + l] > at; --k) z[k * L + l] = z[(k - 1) * L + l];
                z[k * L + l] = at;
            }
        }
    }

    void sort_depths() {
        for (int l = 0; l < L; ++l) {
            int a = 0, b = nc;
            for (int i = 0; i < n; ++i) {
                bool coarse = b >= n || (a < nc && !(z[a * L + l] > z[b * L + l]));
                int from = coarse ? a++ : b++;
                S at = z[from * L + l];
                int k = i;  // near > far would leave the coarse ones unsorted
                for (; k > 0 && zs[(k - 1) * L + l] > at; --k) {
                    zs[k * L + l] = zs[(k - 1) * L + l];
                    order[k * L + l] = order[(k - 1) * L + l];
                }
                zs[k * L + l] = at;
                order[k * L + l] = from;
            }
        }
    }

    void march() {
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < L; ++l) raws[i * L + l] = raw[order[i * L + l] * L + l];
        for (int v = 0; v < NV; ++v) {
            Vec front = V::set(S(1));
            for (int i = 0; i + 1 < n; ++i) front = interval(zs.data(), raws.data(), i, v, front);
        }
    }

    // Whether a coarse sample that was left out is seen after all.
    bool missed(int looked) const {
        if (looked == nc) return false;
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < L; ++l) {
                int from = order[i * L + l];
                if (from >= looked && from < nc && !(through[std::max(i - 1, 0) * L + l] <= unseen())) return true;
            }
        return false;
    }

    void forward(int64_t tile) {
        pick(tile);
        int looked = look_coarse();
        if (nf) {
            draw_fine();
            for (int s = nc; s < n; ++s) {
                sample(s);
                if (promising[s - nc]) paint(s);
            }
        }
        sort_depths();
        march();
        if (missed(looked)) {
            for (int s = looked; s < nc; ++s) sample(s);
            looked = nc;
            march();
        }
        left_out = looked;
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < L; ++l) {
                S a = i ? weight[(i - 1) * L + l] : S(0), b = i + 1 < n ? weight[i * L + l] : S(0);
                coefficient[order[i * L + l] * L + l] = (a + b) * S(0.5);
            }
    }
    int left_out = 0;  // coarse samples from here on have no values (and no part)

    bool counts(int s) const {
        if (s >= left_out && s < nc) return false;
        return job.skip <= 0 || any_above(&coefficient[s * L], S(job.skip));
    }

    void render(int64_t tile) {
        forward(tile);
        std::fill(total.begin(), total.end(), S(0));
        for (int s = 0; s < n; ++s) {
            if (!counts(s)) continue;
            if (!painted[s]) {
                sample(s);
                paint(s);
            }
            for (int v = 0; v < NV; ++v) {
                const Vec c = V::load(&coefficient[s * L + v * W]);
                for (int f = 0; f < F; ++f) {
                    S* to = &total[f * L + v * W];
                    V::store(to, fma_(c, V::load(&colour[(size_t(s) * F + f) * L + v * W]), V::load(to)));
                }
            }
        }
        for (int l = 0; l < L; ++l) {
            int64_t id = ids[l];
            if (id < 0) continue;
            S depth = 0, opacity = 0;
            for (int i = 0; i + 1 < n; ++i) {
                S w = weight[i * L + l];
                opacity += w;
                depth += w * (zs[i * L + l] + zs[(i + 1) * L + l]) * S(0.5);
            }
            for (int f = 0; f < F; ++f) ((S*)job.total)[id * F + f] = total[f * L + l];
            ((S*)job.depth_sum)[id] = depth;
            ((S*)job.opacity)[id] = opacity;
            ((S*)job.range)[id * 2] = zs[l];
            ((S*)job.range)[id * 2 + 1] = zs[(n - 1) * L + l];
            if (job.weights)
                for (int i = 0; i + 1 < n; ++i) ((S*)job.weights)[id * (n - 1) + i] = weight[i * L + l];
            if (job.depths)
                for (int i = 0; i < n; ++i) ((S*)job.depths)[id * n + i] = zs[i * L + l];
        }
    }

    void back(int64_t tile, S* g_planes) {
        forward(tile);
        const bool rays = job.g_origins != nullptr;
        for (int l = 0; l < L; ++l)
            for (int f = 0; f < F; ++f)
                g_feature[f * L + l] = ids[l] < 0 ? S(0) : ((const S*)job.g_total)[ids[l] * F + f];
        // by every coefficient, in the order of sampling (kept in g_raw for now)
        for (int s = 0; s < n; ++s) {
            Vec sum[NV];
            for (int v = 0; v < NV; ++v) sum[v] = V::set(S(0));
            if (!(s >= left_out && s < nc)) {
                if (!painted[s]) paint(s);
                for (int f = 0; f < F; ++f)
                    for (int v = 0; v < NV; ++v)
                        sum[v] = fma_(V::load(&colour[(size_t(s) * F + f) * L + v * W]), V::load(&g_feature[f * L + v * W]), sum[v]);
            }
            for (int v = 0; v < NV; ++v) V::store(&g_raw[s * L + v * W], sum[v]);
        }
        for (int i = 0; i + 1 < n; ++i)
            for (int l = 0; l < L; ++l) {
                S g = 0;
                if (ids[l] >= 0) {
                    S middle = (zs[i * L + l] + zs[(i + 1) * L + l]) * S(0.5);
                    g = ((const S*)job.g_opacity)[ids[l]] + middle * ((const S*)job.g_depth_sum)[ids[l]] +
                        (g_raw[order[i * L + l] * L + l] + g_raw[order[(i + 1) * L + l] * L + l]) * S(0.5);
                }
                g_weight[i * L + l] = g;
            }
        // raws becomes its own gradient
        for (int v = 0; v < NV; ++v) {
            Vec behind = V::set(S(0)), carry = V::set(S(0));
            for (int i = n - 2; i >= 0; --i) {
                int a = i * L + v * W, b = a + L;
                Vec step = V::load(&zs[b]) - V::load(&zs[a]);
                Vec middle = (V::load(&raws[b]) + V::load(&raws[a])) * V::set(S(0.5));
                Vec g = march_back(V::load(&alpha[a]), V::load(&through[a]), step, V::load(&g_weight[a]), behind);
                g = density_slope(job.density, middle, decoder.beta, V::load(&sigma[a]), g, g_beta) * V::set(S(0.5));
                V::store(&raws[b], carry + g);
                carry = g;
            }
            V::store(&raws[v * W], carry);
        }
        S largest = 0;
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < L; ++l) {
                S g = raws[i * L + l];
                g_raw[order[i * L + l] * L + l] = g;
                largest = std::max(largest, S(std::fabs(g)));
            }
        if (rays) std::fill(g_ray.begin(), g_ray.end(), S(0));
        const Vec small = V::set(largest * S(job.skip));
        const bool weights = job.g_w1 != nullptr;
        for (int s = 0; s < n; ++s) {
            if (s >= left_out && s < nc) continue;
            if (job.skip > 0 && !counts(s)) {
                bool any = !(largest == largest);
                for (int v = 0; v < NV; ++v) any = any || V::any(abs_(V::load(&g_raw[s * L + v * W])) > small);
                if (!any) continue;
            }
            for (int f = 0; f < F; ++f)
                for (int v = 0; v < NV; ++v) {
                    Vec g = V::load(&coefficient[s * L + v * W]) * V::load(&g_feature[f * L + v * W]);
                    Vec c = V::load(&colour[(size_t(s) * F + f) * L + v * W]);
                    V::store(&decoder.g_x[(f + 1) * L + v * W], g * activate_slope(job.activation, c));
                }
            place(s);
            decoder.locate();
            if (rays) std::fill(g_position.begin(), g_position.end(), S(0));
            decoder.back(decoder.planes_of(batch), g_planes ? g_planes + batch * job.entry_stride : nullptr, true,
                         &hidden[size_t(s) * H * L], &kept[size_t(s) * L * decoder.CW], &g_raw[s * L], weights,
                         rays ? g_position.data() : nullptr);
            if (rays)
                for (int i = 0; i < 3; ++i)
                    for (int v = 0; v < NV; ++v) {
                        Vec g = V::load(&g_position[i * L + v * W]);
                        S *o = &g_ray[i * L + v * W], *d = &g_ray[(3 + i) * L + v * W];
                        V::store(o, V::load(o) + g);
                        V::store(d, fma_(V::load(&z[s * L + v * W]), g, V::load(d)));
                    }
        }
        if (rays)
            for (int l = 0; l < L; ++l)
                if (ids[l] >= 0)
                    for (int i = 0; i < 3; ++i) {
                        ((S*)job.g_origins)[ids[l] * 3 + i] = g_ray[i * L + l];
                        ((S*)job.g_directions)[ids[l] * 3 + i] = g_ray[(3 + i) * L + l];
                    }
    }

    void deliver() {
        decoder.deliver();
        if (job.g_beta) *(S*)job.g_beta += V::sum(g_beta);
    }
};

}  // namespace gi
