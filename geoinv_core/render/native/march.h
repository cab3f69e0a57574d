// The way of a tile of rays through a field: coarse samples, importance, fine samples, march.
#pragma once

#include <algorithm>
#include <cmath>

#include "decoder.h"
#include "tile.h"

namespace gi {

template <class V> struct Marcher {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;
    static constexpr int32_t SEEN = 1, WANTED = 2;  // has weight; may have opacity

    const Job& job;
    Tile<V> tile;
    Decoder<V> decoder;
    const int nc, nf, n, H, F;
    const bool keeping;                                  // what the way back needs
    const bool guessing;                                 // raw values where nothing can be seen
    std::vector<S> raw, coefficient;                     // [n][L] in the order of sampling
    std::vector<S> raws;                                 // [n][L] sorted
    std::vector<S> alpha, through, sigma, weight;        // [n - 1][L]
    std::vector<int32_t> told;                           // [nc][L] what a coarse interval says of draws in it
    std::vector<S> hidden, kept, colour;                 // [n or 3][H][L], [n or 1][L][CW], [n][F][L]
    std::vector<char> painted, guessed;                  // [n] has colours; has no look behind its raw value
    std::vector<char> wanted, promising;                 // [nf] near what may be seen; near coarse weight
    std::vector<S> total;                                // [F][L]
    std::vector<int> counted;                            // samples that have a part in it
    int left_out = 0;                                    // coarse samples from here on have no values (and no part)

    // A crop is a jump in raw values that their neighbours do not announce.
    Marcher(const Job& j, bool keep)
        : job(j), tile(j), decoder(j, keep), nc(j.coarse), nf(j.fine), n(j.coarse + j.fine), H(j.hidden), F(j.features),
          keeping(keep), guessing(!keep && j.skip > 0 && !j.crop && j.coarse >= 4) {
        for (auto* a : {&raw, &coefficient, &raws, &alpha, &through, &sigma, &weight}) a->resize(size_t(n) * L);
        told.resize(size_t(nc) * L);
        hidden.resize(size_t(keep ? n : 3) * H * L);
        colour.resize(size_t(n) * F * L);
        for (auto* a : {&painted, &guessed, &wanted, &promising}) a->resize(n);
        kept.assign(size_t(keep ? n : 1) * L * decoder.CW, S(0));
        total.resize(size_t(F) * L + L);
    }

    // Makes sample s what the decoder works on; `next` will probably follow.
    void go(int s, int next = -1) {
        decoder.go(s, next, [&](int number, S* position) {
            for (int v = 0; v < NV; ++v) {
                Vec depth = V::load(&tile.z[number * L + v * W]);
                for (int i = 0; i < 3; ++i)
                    V::store(position + i * L + v * W,
                             V::load(&tile.ray[i * L + v * W]) + depth * V::load(&tile.ray[(3 + i) * L + v * W]));
            }
        });
    }
    // Three slots will do on the way forward: what all samples of a tile leave behind does not fit the nearer caches.
    S* hidden_of(int s) { return &hidden[size_t(keeping ? s : s % 3) * H * L]; }
    void sample(int s, int next = -1) {
        go(s, next);
        decoder.look(decoder.planes_of(tile.batch), true, hidden_of(s), &kept[keeping ? size_t(s) * L * decoder.CW : 0],
                     &raw[s * L]);
        painted[s] = guessed[s] = 0;
    }
    // Colours of one of the last three samples looked at.
    void paint(int s) {
        decoder.colours(hidden_of(s), &colour[size_t(s) * F * L]);
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
        return keeping || job.skip <= 0 || (s && any_above(&weight[(s - 1) * L], S(job.skip))) ||
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
    S unseen() const { return S(keeping ? job.skip * 1e-3 : job.skip); }

    // Most opacity of the stretch between samples a and b (vector v) where raw values leave the range of the two by no
    // more than twice `bend`, their second differences around here.
    Vec reach_of(int a, int b, int v, Vec bend) const {
        const int i = a * L + v * W, k = b * L + v * W;
        const Vec x = V::load(&raw[i]), y = V::load(&raw[k]), step = V::load(&tile.z[k]) - V::load(&tile.z[i]);
        const Vec slack = bend + bend;
        const Vec densest = job.density == DENSITY_SDF ? min_(x, y) - slack : max_(x, y) + slack;
        const Vec opaque = interval_alpha(density(job.density, densest, decoder.beta), step);
        return select_(step >= V::set(S(0)), opaque, V::set(S(1)));
    }
    Vec bend_of(int a, int b, int c, int v) const {
        auto at = [&](int s) { return V::load(&raw[s * L + v * W]); };
        return abs_((at(a) - at(b)) - (at(b) - at(c)));
    }
    // The raw value at a depth on the line between the samples that lie at offsets a and b.
    S between(S depth, int32_t a, int32_t b) const {
        const S span = tile.z[b] - tile.z[a], part = span > S(0) ? (depth - tile.z[a]) / span : S(0);
        return raw[a] + part * (raw[b] - raw[a]);
    }
    // Whether coarse sample s, between two that have been looked at, can go without: nothing is seen there.
    bool guess_coarse(int s) {
        S most[L];
        for (int v = 0; v < NV; ++v)
            V::store(most + v * W, reach_of(s - 1, s + 1, v, bend_of(s - 3, s - 1, s + 1, v)));
        if (any_above(most, S(job.skip))) return false;
        for (int32_t i = s * L; i < (s + 1) * L; ++i) raw[i] = between(tile.z[i], i - L, i + L);
        painted[s] = 0;
        guessed[s] = 1;
        return true;
    }
    void paint_if_shown(int s) {
        if (!guessed[s] && shows(s)) paint(s);
    }

    // Coarse samples front to back, every second one only where something may be seen; in tiles where nothing more is
    // seen the rest is left out. Returns how many are in.
    int look_coarse() {
        Vec front[NV];
        for (int v = 0; v < NV; ++v) front[v] = V::set(S(1));
        int next = 0;  // not looked at yet
        for (int s = 0; s < nc; ++s) {
            const int after = s + 3 < nc ? s + 3 : -1;
            if (guessing && s == next && s % 2 && s > 2 && s + 1 < nc) {
                sample(s + 1, guessed[s - 2] ? after : s);
                next = s + 2;
                if (!guess_coarse(s)) sample(s, after);
            } else if (s == next) {
                sample(s, guessing && s % 2 == 0 && s > 1 ? (s + 2 < nc ? s + 2 : -1) : s + 1 < nc ? s + 1 : -1);
                next = s + 1;
            }
            if (!s) continue;
            S behind[L];
            for (int v = 0; v < NV; ++v) {
                front[v] = interval(tile.z.data(), raw.data(), s - 1, v, front[v]);
                V::store(behind + v * W, front[v]);
            }
            paint_if_shown(s - 1);
            if (job.skip > 0 && s < nc - 1 && !any_above(behind, unseen())) {
                for (int r = s + 1; r < nc; ++r) {
                    std::copy(&raw[s * L], &raw[s * L] + L, &raw[r * L]);
                    std::fill(&weight[(r - 1) * L], &weight[(r - 1) * L] + L, S(0));
                    painted[r] = guessed[r] = 0;
                }
                paint_if_shown(s);
                return s + 1;
            }
        }
        paint_if_shown(nc - 1);
        return nc;
    }

    // Draws the fine samples, and looks at those that may be seen.
    void look_fine(int looked) {
        const S skip = S(job.skip);
        std::fill(told.begin(), told.end(), 0);
        for (int i = 0; i + 1 < nc; ++i)
            for (int v = 0; v < NV; ++v) {
                const S* own = &weight[i * L + v * W];
                S most[W] = {};
                if (guessing) {
                    const int a = std::max(i, 1), b = std::min(i + 1, nc - 2);
                    const Vec bend = bend_of(a - 1, a, a + 1, v) + bend_of(b - 1, b, b + 1, v);
                    V::store(most, i + 1 < looked ? reach_of(i, i + 1, v, bend) : V::set(S(0)));
                }
                for (int l = 0; l < W; ++l)  // NaN is not <= either
                    told[i * L + v * W + l] = int32_t(!(own[l] <= skip)) * SEEN | int32_t(!(most[l] <= skip)) * WANTED;
            }
        tile.draw_fine(weight.data());
        const int32_t always = (keeping || job.skip <= 0) * SEEN | !guessing * WANTED;
        for (int i = 0; i < nf; ++i) {
            int32_t all = always;
            for (int l = 0; l < L; ++l) {
                const int32_t a = tile.bin[i * L + l];
                all |= told[a] | told[a + L];
            }
            promising[i] = (all & SEEN) != 0;
            wanted[i] = (all & WANTED) != 0;
        }
        auto next_wanted = [&](int s) {
            while (s < n && !wanted[s - nc]) ++s;
            return s < n ? s : -1;
        };
        std::fill(painted.begin() + nc, painted.end(), char(0));
        std::fill(guessed.begin() + nc, guessed.end(), char(1));
        for (int s = next_wanted(nc); s >= 0;) {
            const int next = next_wanted(s + 1);
            sample(s, next);
            if (promising[s - nc]) paint(s);
            s = next;
        }
    }
    // Raw values of the fine samples that were not looked at, from the coarse ones beside them.
    void guess_fine() {
        for (int s = nc; s < n; ++s) {
            if (!guessed[s]) continue;
            for (int l = 0; l < L; ++l) {
                const S depth = tile.z[s * L + l];
                int32_t a = tile.bin[(s - nc) * L + l];  // a draw lies behind it, or behind the next
                a += depth >= tile.z[a + L] ? L : 0;
                raw[s * L + l] = between(depth, a, a + L);
            }
        }
    }

    void march() {
        for (int i = 0; i < n * L; ++i) raws[i] = raw[tile.order[i]];
        for (int v = 0; v < NV; ++v) {
            Vec front = V::set(S(1));
            for (int i = 0; i + 1 < n; ++i) front = interval(tile.zs.data(), raws.data(), i, v, front);
        }
    }

    // Whether a coarse sample that was left out is seen after all.
    bool missed(int looked) const {
        if (looked == nc) return false;
        const int32_t first = looked * L, end = nc * L;
        const S limit = unseen();
        int32_t any = 0;
        for (int i = 0; i < n; ++i) {
            const S* front = &through[std::max(i - 1, 0) * L];
            for (int l = 0; l < L; ++l) {
                const int32_t from = tile.order[i * L + l];
                any |= int32_t(from >= first) & int32_t(from < end) & int32_t(!(front[l] <= limit));
            }
        }
        return any;
    }

    void forward(int64_t number) {
        tile.pick(number);
        decoder.expected = -1;
        int looked = look_coarse();
        if (nf) look_fine(looked);
        tile.sort();
        if (guessing) guess_fine();
        march();
        if (missed(looked)) {
            for (int s = looked; s < n; ++s)
                if (s < nc || guessed[s]) sample(s);
            looked = nc;
            march();
        }
        left_out = looked;
        std::fill(&weight[(n - 1) * L], &weight[(n - 1) * L] + L, S(0));
        for (int i = 0; i < n; ++i) {
            const S *behind = &weight[i * L], *before = i ? behind - L : &weight[(n - 1) * L];
            for (int l = 0; l < L; ++l) coefficient[tile.order[i * L + l]] = (before[l] + behind[l]) * S(0.5);
        }
    }

    bool counts(int s) const {
        if (s >= left_out && s < nc) return false;
        return job.skip <= 0 || any_above(&coefficient[s * L], S(job.skip));
    }

    // Total features of the rays: colours of the samples that count, times their coefficients.
    void add_up() {
        counted.clear();
        for (int s = 0; s < n; ++s) {
            if (!counts(s)) continue;
            if (!painted[s]) {
                sample(s);
                paint(s);
            }
            counted.push_back(s);
        }
        in_blocks(F, [&](auto block, int f) {
            constexpr int JB = decltype(block)::value;
            Vec sum[JB][NV];
            for (int j = 0; j < JB; ++j)
                for (int v = 0; v < NV; ++v) sum[j][v] = V::set(S(0));
            for (int s : counted) {
                const S *from = &colour[(size_t(s) * F + f) * L], *share = &coefficient[size_t(s) * L];
                GI_UNROLL for (int j = 0; j < JB; ++j)
                    GI_UNROLL for (int v = 0; v < NV; ++v)
                        sum[j][v] = fma_(V::load(share + v * W), V::load(from + j * L + v * W), sum[j][v]);
            }
            for (int j = 0; j < JB; ++j)
                for (int v = 0; v < NV; ++v) V::store(&total[(f + j) * L + v * W], sum[j][v]);
        });
    }

    void render(int64_t number) {
        forward(number);
        add_up();
        S depths[L], opacities[L];
        for (int v = 0; v < NV; ++v) {
            Vec depth = V::set(S(0)), opacity = V::set(S(0));
            for (int i = 0; i + 1 < n; ++i) {
                const int a = i * L + v * W;
                const Vec w = V::load(&weight[a]), ends = V::load(&tile.zs[a]) + V::load(&tile.zs[a + L]);
                opacity = opacity + w;
                depth = fma_(w, ends * V::set(S(0.5)), depth);
            }
            V::store(depths + v * W, depth);
            V::store(opacities + v * W, opacity);
        }
        for (int l = 0; l < L; ++l) {
            int64_t id = tile.ids[l];
            if (id < 0) continue;
            for (int f = 0; f < F; ++f) ((S*)job.total)[id * F + f] = total[f * L + l];
            ((S*)job.depth_sum)[id] = depths[l];
            ((S*)job.opacity)[id] = opacities[l];
            ((S*)job.range)[id * 2] = tile.zs[l];
            ((S*)job.range)[id * 2 + 1] = tile.zs[(n - 1) * L + l];
            if (job.weights)
                for (int i = 0; i + 1 < n; ++i) ((S*)job.weights)[id * (n - 1) + i] = weight[i * L + l];
            if (job.depths)
                for (int i = 0; i < n; ++i) ((S*)job.depths)[id * n + i] = tile.zs[i * L + l];
        }
    }
};

}  // namespace gi
