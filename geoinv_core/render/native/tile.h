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
    std::vector<int32_t> order;  // [n][L]: offset in z of what lies there when sorted
    std::vector<S> cdf, u;       // [nc][L], [nf][L]
    std::vector<int32_t> bin;    // [nf + 1][L] offset of the coarse interval of a draw
    bool drawn = false;          // u holds even draws

    explicit Tile(const Job& j) : job(j), nc(j.coarse), nf(j.fine), n(j.coarse + j.fine) {
        ray.resize(8 * L);
        z.resize(size_t(n) * L + L);
        zs.resize(size_t(n) * L);
        order.resize(size_t(n) * L);
        cdf.resize(size_t(nc) * L);
        u.resize(size_t(nf) * L + L);
        bin.resize(size_t(nf) * L + L);
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

    // Fine depths from the weights [nc - 1][L] of the coarse intervals. A draw lies between the middle of the interval
    // whose weight is where `bin` says and that of the next.
    void draw_fine(const S* weight) {
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
        put_draws();
        // Entries of cdf and draws in one order, all rays abreast: a branch would be guessed wrong every other time.
        int32_t entry[L], draw[L];  // offsets, like all below
        for (int l = 0; l < L; ++l) entry[l] = draw[l] = l;
        const int32_t entries = (last + 1) * L, draws = nf * L;
        const S *of_cdf = cdf.data(), *of_u = u.data(), *of_z = z.data();
        int32_t* found = bin.data();
        for (int step = 0; step < last + 1 + nf; ++step)
            for (int l = 0; l < L; ++l) {
                const int32_t r = entry[l], d = draw[l];
                const int32_t falls = -(int32_t(d < draws) & (int32_t(r >= entries) | int32_t(of_cdf[r] > of_u[d])));
                found[d] = r;
                draw[l] = d + (L & falls);
                entry[l] = r + (L & ~falls);
            }
        S* fine = &z[size_t(nc) * L];
        for (int i = 0; i < nf; ++i)
            for (int l = 0; l < L; ++l) {
                const int32_t r = found[i * L + l], below = std::max(r - L, l), above = std::min(r, last * L + l);
                const S low = of_cdf[below], apart = of_cdf[above] - low, span = apart >= S(1e-5) ? apart : S(1);
                const S z0 = (of_z[below] + of_z[below + L]) * S(0.5), z1 = (of_z[above] + of_z[above + L]) * S(0.5);
                fine[i * L + l] = z0 + (of_u[i * L + l] - low) / span * (z1 - z0);
                found[i * L + l] = below;
            }
        // Rounding may turn two neighbours around.
        for (int i = 1; i < nf; ++i)
            if (falling(fine, i))
                for (int l = 0; l < L; ++l) sink(fine, i, l);
    }

    // Whether some ray's number i lies before the one before it.
    static bool falling(const S* of, int i) {
        int32_t any = 0;
        for (int l = 0; l < L; ++l) any |= int32_t(of[(i - 1) * L + l] > of[i * L + l]);
        return any;
    }

    // The fine draws of the tile's rays, in ascending order; missing rays, and all without draws, get even ones.
    void put_draws() {
        const S* draws = (const S*)job.u_fine;
        if (!draws && drawn) return;
        drawn = true;
        std::vector<S> row(nf);
        for (int l = 0; l < L; ++l) {
            const bool own = draws && ids[l] >= 0;
            for (int i = 0; i < nf; ++i) row[i] = own ? draws[ids[l] * nf + i] : (S(i) + S(0.5)) / S(nf);
            if (draws) std::sort(row.begin(), row.end());
            for (int i = 0; i < nf; ++i) u[i * L + l] = row[i];
        }
    }

    // Moves number i of ray l up to where it belongs among those before it.
    static void sink(S* of, int i, int l) {
        const S at = of[i * L + l];
        if (!(of[(i - 1) * L + l] > at)) return;
        int k = i;
        for (; k > 0 && of[(k - 1) * L + l] > at; --k) of[k * L + l] = of[(k - 1) * L + l];
        of[k * L + l] = at;
    }

    // Coarse and fine depths in one order, all rays abreast.
    void sort() {
        int32_t coarse[L], fine[L];
        for (int l = 0; l < L; ++l) {
            coarse[l] = l;
            fine[l] = nc * L + l;
        }
        const int32_t coarse_end = nc * L, fine_end = n * L;
        const S* from = z.data();
        S* to = zs.data();
        int32_t* which = order.data();
        for (int i = 0; i < n * L; i += L)
            for (int l = 0; l < L; ++l) {
                const int32_t a = coarse[l], b = fine[l];
                const int32_t first =
                    -(int32_t(b >= fine_end) | (int32_t(a < coarse_end) & int32_t(!(from[a] > from[b]))));
                const int32_t taken = b ^ ((a ^ b) & first);
                to[i + l] = from[taken];
                which[i + l] = taken;
                coarse[l] = a + (L & first);
                fine[l] = b + (L & ~first);
            }
        for (int i = 1; i < n; ++i)
            if (falling(to, i)) return sort_again();
    }
    // near > far leaves the coarse ones unsorted.
    void sort_again() {
        for (int l = 0; l < L; ++l)
            for (int i = 1; i < n; ++i) {
                const S at = zs[i * L + l];
                const int32_t from = order[i * L + l];
                int k = i;
                for (; k > 0 && zs[(k - 1) * L + l] > at; --k) {
                    zs[k * L + l] = zs[(k - 1) * L + l];
                    order[k * L + l] = order[(k - 1) * L + l];
                }
                zs[k * L + l] = at;
                order[k * L + l] = from;
            }
    }
};

}  // namespace gi
