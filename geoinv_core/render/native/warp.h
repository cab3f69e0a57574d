// The content of planes, moved: every texel takes what lies somewhere else, all channels of it at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace gi {

// Matches warp.py. Addresses are of whole tensors; strides count numbers, in the order entry, plane, channel, slice,
// row, column.
struct Warp {
    int32_t planes, channels, slices, height, width;
    int64_t strides[6], g_strides[6];
    const void* content;    // laid out by strides
    const void* at;         // [B, P, D, H, W, 2]: column and row, -1..1 from border to border
    void* moved;            // [B, P, D, H, W, C]
    const void* g_moved;    // likewise
    void* g_content;        // laid out by g_strides
    void* g_at;
};

template <class V> class Warper {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int L = V::width;

    const Warp& job;
    const int C, padded;
    const int64_t texels;
    std::vector<S> rows, g_rows, row;

    struct Taps {
        int64_t place[4];  // of rows: upper left, upper right, lower left, lower right
        S weight[4];
        S x, y;            // from the upper left one, 0..1
        S slope_x, slope_y;
    };

    Taps taps(const S* at, int64_t slice) const {
        Taps t;
        S x = ((at[0] + 1) * job.width - 1) / 2, y = ((at[1] + 1) * job.height - 1) / 2;
        const S right = S(job.width - 1), bottom = S(job.height - 1);
        // beyond the border everything is as it is there, and nothing changes
        t.slope_x = x > 0 && x < right ? S(job.width) / 2 : S(0);
        t.slope_y = y > 0 && y < bottom ? S(job.height) / 2 : S(0);
        x = std::min(std::max(S(0), x), right);
        y = std::min(std::max(S(0), y), bottom);
        const int64_t left = int64_t(x), top = int64_t(y);
        const int64_t next = left + 1 < job.width, below = top + 1 < job.height ? job.width : 0;
        t.x = x - S(left);
        t.y = y - S(top);
        t.place[0] = (slice * texels + top * job.width + left) * padded;
        t.place[1] = t.place[0] + next * padded;
        t.place[2] = t.place[0] + below * padded;
        t.place[3] = t.place[2] + next * padded;
        t.weight[0] = (1 - t.x) * (1 - t.y);
        t.weight[1] = t.x * (1 - t.y);
        t.weight[2] = (1 - t.x) * t.y;
        t.weight[3] = t.x * t.y;
        return t;
    }

    // Numbers between the tensor and rows [slice][texel][channel], along the tensor's memory.
    // Woven<D>: a texel's channels stand side by side, the D slices of each alternating; so do a network's pictures.
    template <int D, class F> void woven(int64_t start, const int64_t* s, F&& visit) const {
        for (int64_t y = 0; y < job.height; ++y)
            for (int64_t x = 0; x < job.width; ++x) {
                const int64_t i = start + y * s[4] + x * s[5], k = (y * job.width + x) * padded;
                for (int c = 0; c < C; ++c)
                    for (int d = 0; d < D; ++d) visit(i + c * D + d, k + c + d * texels * padded);
            }
    }

    template <class F> void each(int64_t plane, const int64_t* s, F&& visit) const {
        const int64_t start = plane / job.planes * s[0] + plane % job.planes * s[1];
        const bool alternating = s[2] == job.slices && (job.slices == 1 || s[3] == 1);
        if (alternating && job.slices == 1) return woven<1>(start, s, visit);
        if (alternating && job.slices == 2) return woven<2>(start, s, visit);
        for (int64_t d = 0; d < job.slices; ++d)
            for (int64_t c = 0; c < C; ++c)
                for (int64_t y = 0; y < job.height; ++y)
                    for (int64_t x = 0; x < job.width; ++x)
                        visit(start + c * s[2] + d * s[3] + y * s[4] + x * s[5],
                              (d * texels + y * job.width + x) * padded + c);
    }

    void fetch(int64_t plane) {
        const S* from = (const S*)job.content;
        S* to = rows.data();
        each(plane, job.strides, [from, to](int64_t i, int64_t k) { to[k] = from[i]; });
    }

public:
    Warper(const Warp& j, bool back)
        : job(j), C(j.channels), padded((j.channels + L - 1) / L * L), texels(int64_t(j.height) * j.width),
          rows(j.slices * texels * padded, S(0)),
          g_rows(back ? rows.size() : 0), row(padded, S(0)) {}

    void move(int64_t plane) {
        fetch(plane);
        const int64_t count = job.slices * texels;
        const S* at = (const S*)job.at + plane * count * 2;
        S* out = (S*)job.moved + plane * count * C;
        for (int64_t i = 0; i < count; ++i, out += C) {
            const Taps t = taps(at + 2 * i, i / texels);
            S* to = padded == C ? out : row.data();
            for (int c = 0; c < padded; c += L) {
                Vec sum = V::load(&rows[t.place[0] + c]) * V::set(t.weight[0]);
                for (int k = 1; k < 4; ++k) sum = fma_(V::load(&rows[t.place[k] + c]), V::set(t.weight[k]), sum);
                V::store(to + c, sum);
            }
            if (padded != C) std::copy(to, to + C, out);
        }
    }

    void back(int64_t plane) {
        fetch(plane);
        std::fill(g_rows.begin(), g_rows.end(), S(0));
        const int64_t count = job.slices * texels;
        const S* at = (const S*)job.at + plane * count * 2;
        const S* g = (const S*)job.g_moved + plane * count * C;
        S* g_at = (S*)job.g_at + plane * count * 2;
        for (int64_t i = 0; i < count; ++i, g += C) {
            const Taps t = taps(at + 2 * i, i / texels);
            const S* from = g;
            if (padded != C) {
                std::copy(g, g + C, row.begin());
                from = row.data();
            }
            Vec sum[4] = {V::set(0), V::set(0), V::set(0), V::set(0)};
            for (int c = 0; c < padded; c += L) {
                const Vec value = V::load(from + c);
                for (int k = 0; k < 4; ++k) {  // in turn: places may coincide at the border
                    S* to = &g_rows[t.place[k] + c];
                    V::store(to, fma_(value, V::set(t.weight[k]), V::load(to)));
                    sum[k] = fma_(value, V::load(&rows[t.place[k] + c]), sum[k]);
                }
            }
            S s[4];
            for (int k = 0; k < 4; ++k) s[k] = V::sum(sum[k]);
            g_at[2 * i] = t.slope_x * ((1 - t.y) * (s[1] - s[0]) + t.y * (s[3] - s[2]));
            g_at[2 * i + 1] = t.slope_y * ((1 - t.x) * (s[2] - s[0]) + t.x * (s[3] - s[1]));
        }
        const S* from = g_rows.data();
        S* to = (S*)job.g_content;
        each(plane, job.g_strides, [from, to](int64_t i, int64_t k) { to[i] = from[k]; });
    }
};

}  // namespace gi
