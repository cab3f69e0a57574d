// A tile of L neighbouring rays, and the depths that they are sampled at.
#pragma once

#include <algorithm>
#include <vector>

#include "job.h"
#include "lanes.h"

namespace gi {

template <class V> struct Tile {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;

    const Job& job;
    const int nc, nf, n;
    int64_t ids[L];              // rays of the tile; -1: none
    int64_t batch = 0;
    std::vector<S> ray;          // [8][L]: origin, direction, near, far
    std::vector<S> z, zs;        // [n][L] in the order of sampling, and sorted
    std::vector<int32_t> order;  // [n][L]: which sample lies there when sorted
    std::vector<S> cdf, u;

    explicit Tile(const Job& j) : job(j), nc(j.coarse), nf(j.fine), n(j.coarse + j.fine) {
        ray.resize(8 * L);
        z.resize(size_t(n) * L);
        zs.resize(size_t(n) * L);
        order.resize(size_t(n) * L);
        cdf.resize(size_t(nc) * L);
        u.resize(nf + 1);
    }

    static int64_t count(const Job& job) { return job.batch * per_entry(job); }
    static int side_x() { return L >= 16 ? 4 : 1; }
    static int64_t per_entry(const Job& job) {
        if (!job.image_width) return (job.rays + L - 1) / L;
        int64_t height = job.rays / job.image_width, sx = side_x(), sy = L / sx;
        return (job.image_width + sx - 1) / sx * ((height + sy - 1) / sy);
    }

    // Rays of a tile and their coarse depths. Missing rays repeat a neighbour, and are not written.
    void pick(int64_t tile) {
        int64_t per = per_entry(job);
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
                int64_t height = job.rays / job.image_width, sx = side_x(), sy = L / sx;
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

    // Fine depths from the weights [nc - 1][L] of the coarse intervals. Tells met(i, l, b) of every draw i of ray l that
    // it fell into bin b, which lies between the middles of intervals b and b + 1.
    template <class Met> void draw_fine(const S* weight, Met&& met) {
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
                met(i, l, below);
                int k = nc + i;
                for (; k > nc && z[(k - 1) * L + l] > at; --k) z[k * L + l] = z[(k - 1) * L + l];
                z[k * L + l] = at;
            }
        }
    }

    void sort() {
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
};

}  // namespace gi
