// Back through a tile: from the gradients of the sums to those of planes, decoder, beta and rays.
#pragma once

#include "march.h"

namespace gi {

template <class V> struct BackMarcher {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;

    const Job& job;
    Marcher<V> march;
    Tile<V>& tile;
    Decoder<V>& decoder;
    const int nc, n, H, F;
    std::vector<S> g_weight, g_raw, g_feature, g_ray, g_position;  // [n][L] twice, [F][L], [6][L], [3][L]
    Vec g_beta;

    explicit BackMarcher(const Job& j)
        : job(j), march(j, true), tile(march.tile), decoder(march.decoder), nc(j.coarse), n(j.coarse + j.fine),
          H(j.hidden), F(j.features), g_beta(V::set(S(0))) {
        g_weight.resize(size_t(n) * L);
        g_raw.resize(size_t(n) * L);
        g_feature.resize(size_t(F) * L + L);
        g_ray.resize(6 * L);
        g_position.resize(3 * L);
    }

    void back(int64_t number, S* g_planes) {
        march.forward(number);
        const bool rays = job.g_origins != nullptr;
        for (int l = 0; l < L; ++l)
            for (int f = 0; f < F; ++f)
                g_feature[f * L + l] = tile.ids[l] < 0 ? S(0) : ((const S*)job.g_total)[tile.ids[l] * F + f];
        // by every coefficient, in the order of sampling (kept in g_raw for now)
        for (int s = 0; s < n; ++s) {
            Vec sum[NV];
            for (int v = 0; v < NV; ++v) sum[v] = V::set(S(0));
            if (!(s >= march.left_out && s < nc)) {
                if (!march.painted[s]) march.paint(s);
                for (int f = 0; f < F; ++f)
                    for (int v = 0; v < NV; ++v)
                        sum[v] = fma_(V::load(&march.colour[(size_t(s) * F + f) * L + v * W]),
                                      V::load(&g_feature[f * L + v * W]), sum[v]);
            }
            for (int v = 0; v < NV; ++v) V::store(&g_raw[s * L + v * W], sum[v]);
        }
        for (int i = 0; i + 1 < n; ++i)
            for (int l = 0; l < L; ++l) {
                S g = 0;
                if (tile.ids[l] >= 0) {
                    S middle = (tile.zs[i * L + l] + tile.zs[(i + 1) * L + l]) * S(0.5);
                    g = ((const S*)job.g_opacity)[tile.ids[l]] + middle * ((const S*)job.g_depth_sum)[tile.ids[l]] +
                        (g_raw[tile.order[i * L + l]] + g_raw[tile.order[(i + 1) * L + l]]) * S(0.5);
                }
                g_weight[i * L + l] = g;
            }
        // raws becomes its own gradient
        for (int v = 0; v < NV; ++v) {
            Vec behind = V::set(S(0)), carry = V::set(S(0));
            for (int i = n - 2; i >= 0; --i) {
                int a = i * L + v * W, b = a + L;
                Vec step = V::load(&tile.zs[b]) - V::load(&tile.zs[a]);
                Vec middle = (V::load(&march.raws[b]) + V::load(&march.raws[a])) * V::set(S(0.5));
                Vec g = march_back(V::load(&march.alpha[a]), V::load(&march.through[a]), step, V::load(&g_weight[a]),
                                   behind);
                g = density_slope(job.density, middle, decoder.beta, V::load(&march.sigma[a]), g, g_beta);
                g = g * V::set(S(0.5));
                V::store(&march.raws[b], carry + g);
                carry = g;
            }
            V::store(&march.raws[v * W], carry);
        }
        S largest = 0;
        for (int i = 0; i < n; ++i)
            for (int l = 0; l < L; ++l) {
                S g = march.raws[i * L + l];
                g_raw[tile.order[i * L + l]] = g;
                largest = std::max(largest, S(std::fabs(g)));
            }
        if (rays) std::fill(g_ray.begin(), g_ray.end(), S(0));
        const Vec small = V::set(largest * S(job.skip));
        const bool weights = job.g_w1 != nullptr;
        for (int s = 0; s < n; ++s) {
            if (s >= march.left_out && s < nc) continue;
            if (job.skip > 0 && !march.counts(s)) {
                bool any = !(largest == largest);
                for (int v = 0; v < NV; ++v) any = any || V::any(abs_(V::load(&g_raw[s * L + v * W])) > small);
                if (!any) continue;
            }
            for (int f = 0; f < F; ++f)
                for (int v = 0; v < NV; ++v) {
                    Vec g = V::load(&march.coefficient[s * L + v * W]) * V::load(&g_feature[f * L + v * W]);
                    Vec c = V::load(&march.colour[(size_t(s) * F + f) * L + v * W]);
                    V::store(&decoder.g_x[(f + 1) * L + v * W], g * activate_slope(job.activation, c));
                }
            march.go(s);
            if (rays) std::fill(g_position.begin(), g_position.end(), S(0));
            decoder.back(decoder.planes_of(tile.batch), g_planes ? g_planes + tile.batch * job.entry_stride : nullptr, true,
                         &march.hidden[size_t(s) * H * L], &march.kept[size_t(s) * L * decoder.CW], &g_raw[s * L], weights,
                         rays ? g_position.data() : nullptr);
            if (rays)
                for (int i = 0; i < 3; ++i)
                    for (int v = 0; v < NV; ++v) {
                        Vec g = V::load(&g_position[i * L + v * W]);
                        S *o = &g_ray[i * L + v * W], *d = &g_ray[(3 + i) * L + v * W];
                        V::store(o, V::load(o) + g);
                        V::store(d, fma_(V::load(&tile.z[s * L + v * W]), g, V::load(d)));
                    }
        }
        if (rays)
            for (int l = 0; l < L; ++l)
                if (tile.ids[l] >= 0)
                    for (int i = 0; i < 3; ++i) {
                        ((S*)job.g_origins)[tile.ids[l] * 3 + i] = g_ray[i * L + l];
                        ((S*)job.g_directions)[tile.ids[l] * 3 + i] = g_ray[(3 + i) * L + l];
                    }
    }

    void deliver() {
        decoder.deliver();
        if (job.g_beta) *(S*)job.g_beta += V::sum(g_beta);
    }
};

}  // namespace gi
