// The lattice: with the first decoder layer applied to the planes beforehand, a value needs no lookup of features.
//
// The lookup and the mean over planes are linear, so hidden(x, y, z) = softplus(XY[x, y] + XZ[x, z] + YZ[y, z]), with
// tables of `hidden` numbers per pair of lattice indices, already resampled to the lattice. Exact up to rounding.
#pragma once

#include <cmath>

#include "decoder.h"

namespace gi {

// Tables: XY [x][y][hidden] (holds b1 as well), XZ [x][block][hidden][16], YZ [y][block][hidden][16], with blocks of
// sixteen z. XY and XZ begin at x = first_row.
template <class V> struct Lattice {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, BLOCK = 16, E = 4;  // E: steps in x at once, which share the loads of YZ

    const Job& job;
    const int N = job.resolution, H = job.hidden, blocks = (N + BLOCK - 1) / BLOCK, runs = (N + 7) / 8;

    explicit Lattice(const Job& j) : job(j) {}

    // x = first_row + a .. first_row + b, all y and z. YZ is the one table that does not fit the caches, so it is
    // gone through once per E steps.
    void fill(int64_t a, int64_t b) const {
        for (int64_t row = a; row < b; row += E) {
            const int many = int(std::min<int64_t>(E, b - row));
            for (int block = 0; block < blocks; ++block)
                for (int y = 0; y < N; ++y)
                    for (int z = block * BLOCK; z < std::min(N, (block + 1) * BLOCK); z += W) {
                        bool wanted[E];
                        int count = 0;
                        for (int e = 0; e < many; ++e) count += wanted[e] = is_wanted(row + e, y, z);
                        if (count == E) {
                            column<E>(row, y, z);
                            continue;
                        }
                        for (int e = 0; e < many; ++e)
                            if (wanted[e]) column<1>(row + e, y, z);
                    }
        }
    }

    bool is_wanted(int64_t row, int y, int z) const {
        if (!job.mask) return true;
        const uint8_t* run = (const uint8_t*)job.mask + ((job.first_row + row) * N + y) * runs + z / 8;
        return run[0] || (W > 8 && z + 8 < N && run[1]);
    }

    const S* block_of(const void* table, int64_t i, int z) const {
        return (const S*)table + (i * blocks + z / BLOCK) * H * BLOCK + z % BLOCK;
    }

    // W values along z, at each of M neighbouring x.
    template <int M> inline void column(int64_t row, int y, int z) const {
        const S *w2 = (const S*)job.w2, *yz = block_of(job.table_yz, y, z), *xy[M], *xz[M];
        Vec sum[M];
        for (int m = 0; m < M; ++m) {
            xy[m] = (const S*)job.table_xy + ((row + m) * N + y) * H;
            xz[m] = block_of(job.table_xz, row + m, z);
            sum[m] = V::set(((const S*)job.b2)[0]);
        }
        const Softplus<Vec> softplus;
        for (int j = 0; j < H; ++j) {
            const Vec weight = V::broadcast(w2 + j), beside = V::load(yz + j * BLOCK);
            for (int m = 0; m < M; ++m) {
                Vec before = V::broadcast(xy[m] + j) + (V::load(xz[m] + j * BLOCK) + beside);
                sum[m] = fma_(weight, softplus(before), sum[m]);
            }
        }
        for (int m = 0; m < M; ++m) {
            S found[W];
            V::store(found, sum[m]);
            write(job.first_row + row + m, y, z, found);
        }
    }

    inline void write(int64_t x, int y, int z, const S* found) const {
        const S* axis = (const S*)job.axis;
        S* out = (S*)job.grid + (x * N + y) * N + z;
        for (int i = 0; i < W && z + i < N; ++i) {
            S value = found[i];
            if (job.density == DENSITY_SDF) {
                S X = axis[x], Y = axis[y], Z = axis[z + i];
                value = S(job.distance_scale) * value + std::sqrt(X * X + Y * Y + Z * Z) - S(job.distance_radius);
            }
            out[i] = value;
        }
    }
};

}  // namespace gi
