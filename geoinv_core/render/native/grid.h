// The lattice: with the first decoder layer applied to the planes beforehand, a value needs no lookup of features.
//
// The lookup and the mean over planes are linear, so hidden(x, y, z) = softplus(XY[x, y] + XZ[x, z] + YZ[y, z]), with
// tables of `hidden` numbers per pair of lattice indices, already resampled to the lattice. Exact up to rounding.
#pragma once

#include <cmath>

#include "decoder.h"

namespace gi {

// Tables: XY [x][y][hidden] (holds b1 as well), XZ [x][hidden][z], YZ [y][hidden][z], z padded to 16.
// XY and XZ begin at x = first_row; rows a to b are counted from there.
template <class V> int grid_rows(const Job& job, int64_t a, int64_t b) {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    constexpr int W = V::width;
    const int N = job.resolution, H = job.hidden, NP = (N + 15) / 16 * 16, runs = (N + 7) / 8;
    const S *axis = (const S*)job.axis, *w2 = (const S*)job.w2;
    const S bias = ((const S*)job.b2)[0];
    const uint8_t* mask = (const uint8_t*)job.mask;
    for (int64_t row = a; row < b; ++row)
        for (int y = 0; y < N; ++y) {
            const int64_t x = job.first_row + row;
            const S* xy = (const S*)job.table_xy + (row * N + y) * H;
            const S* xz = (const S*)job.table_xz + row * H * NP;
            const S* yz = (const S*)job.table_yz + int64_t(y) * H * NP;
            S* out = (S*)job.grid + (x * N + y) * N;
            for (int z = 0; z < N; z += W) {
                const uint8_t* wanted = mask ? mask + (x * N + y) * runs + z / 8 : nullptr;
                if (wanted && !wanted[0] && (W <= 8 || z + 8 >= N || !wanted[1])) continue;
                auto hidden = [&](int j) {
                    return hidden_softplus(V::broadcast(xy + j) + (V::load(xz + j * NP + z) + V::load(yz + j * NP + z)));
                };
                Vec even = V::set(bias), odd = V::set(S(0));
                int j = 0;
                for (; j + 2 <= H; j += 2) {
                    even = fma_(V::broadcast(w2 + j), hidden(j), even);
                    odd = fma_(V::broadcast(w2 + j + 1), hidden(j + 1), odd);
                }
                if (j < H) even = fma_(V::broadcast(w2 + j), hidden(j), even);
                S found[W];
                V::store(found, even + odd);
                for (int i = 0; i < W && z + i < N; ++i) {
                    S value = found[i];
                    if (job.density == DENSITY_SDF) {
                        S X = axis[x], Y = axis[y], Z = axis[z + i];
                        value = S(job.distance_scale) * value + std::sqrt(X * X + Y * Y + Z * Z) - S(job.distance_radius);
                    }
                    out[z + i] = value;
                }
            }
        }
    return 0;
}

}  // namespace gi
