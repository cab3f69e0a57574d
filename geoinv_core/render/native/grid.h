// The lattice: with the first decoder layer applied to the planes beforehand, a value needs no lookup of features.
//
// The lookup and the mean over planes are linear, so hidden(x, y, z) = softplus(XY[x, y] + XZ[x, z] + YZ[y, z]), with
// tables of `hidden` numbers per pair of lattice indices, already resampled to the lattice. Exact up to rounding.
#pragma once

#include <cmath>
#include <vector>

#include "decoder.h"

namespace gi {

// Tables: XY [d][x][y][hidden], XZ [d][x][hidden][z], YZ [d][y][hidden][z], z padded to 16, d over the slices of a
// tri-grid. Of planes there is one slice, and XY holds b1 as well.
//
// Along the third coordinate of each table a tri-grid mixes two slices. Weight of a slice: [slices][NP], lattice index
// by lattice index, zero for all but two.
template <class V> std::vector<typename V::Scalar> slice_weights(const Job& job, int NP) {
    using S = typename V::Scalar;
    std::vector<S> weights(size_t(std::max(job.depth, 1)) * NP, S(0));
    const S *axis = (const S*)job.axis, side = axis[job.resolution - 1] * 2;
    for (int i = 0; i < job.resolution && job.depth; ++i) {
        const Taps<S> t = taps(axis[i] * 2 / side, S(job.depth));
        weights[size_t(t.low) * NP + i] += t.weight_low;
        weights[size_t(t.high) * NP + i] += t.weight_high;
    }
    return weights;
}

// Slices first .. last of which some weight of indices a .. b is not zero.
struct Slices { int first, last; };
template <class S> Slices slices_of(const std::vector<S>& weights, int depth, int NP, int a, int b) {
    Slices found = {depth, -1};
    for (int d = 0; d < depth; ++d)
        for (int i = a; i < b; ++i)
            if (weights[size_t(d) * NP + i] != S(0)) found = {std::min(found.first, d), d};
    return found;
}

// Rows a to b, counted from the first one.
template <class V> int grid_rows(const Job& job, int64_t a, int64_t b) {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    constexpr int W = V::width;
    const int N = job.resolution, H = job.hidden, NP = (N + 15) / 16 * 16, runs = (N + 7) / 8;
    const S *axis = (const S*)job.axis, *w2 = (const S*)job.w2, *b1 = (const S*)job.b1;
    const S bias = ((const S*)job.b2)[0];
    const uint8_t* mask = (const uint8_t*)job.mask;
    const int64_t xy_slice = int64_t(job.row_count) * N * H, xz_slice = int64_t(job.row_count) * H * NP;
    const int64_t yz_slice = int64_t(N) * H * NP;
    const std::vector<S> share = slice_weights<V>(job, NP);
    std::vector<Slices> of_run(NP / W), of_index(N);
    for (int i = 0; i < N; ++i) of_index[i] = slices_of(share, job.depth, NP, i, i + 1);
    for (int r = 0; r < NP / W; ++r) of_run[r] = slices_of(share, job.depth, NP, r * W, r * W + W);
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
                auto planes = [&](int j) {
                    return V::broadcast(xy + j) + (V::load(xz + j * NP + z) + V::load(yz + j * NP + z));
                };
                auto slices = [&](int j) {
                    Vec sum = V::broadcast(b1 + j), other = V::set(S(0));
                    for (int d = of_index[y].first; d <= of_index[y].last; ++d)
                        sum = fma_(V::set(share[d * NP + y]), V::load(xz + d * xz_slice + j * NP + z), sum);
                    for (int d = of_index[x].first; d <= of_index[x].last; ++d)
                        other = fma_(V::set(share[d * NP + x]), V::load(yz + d * yz_slice + j * NP + z), other);
                    for (int d = of_run[z / W].first; d <= of_run[z / W].last; ++d)
                        sum = fma_(V::broadcast(xy + d * xy_slice + j), V::load(&share[d * NP + z]), sum);
                    return sum + other;
                };
                Vec even = V::set(bias), odd = V::set(S(0));
                auto decode = [&](auto&& hidden) {
                    int j = 0;
                    for (; j + 2 <= H; j += 2) {
                        const Vec first = hidden_softplus(hidden(j)), second = hidden_softplus(hidden(j + 1));
                        even = fma_(V::broadcast(w2 + j), first, even);
                        odd = fma_(V::broadcast(w2 + j + 1), second, odd);
                    }
                    if (j < H) even = fma_(V::broadcast(w2 + j), hidden_softplus(hidden(j)), even);
                };
                if (job.depth) decode(slices);
                else decode(planes);
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
