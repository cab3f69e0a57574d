// Values at points, and the change of layout between PyTorch's planes and the renderer's.
#pragma once

#include "decoder.h"

namespace gi {

template <class V> struct Points {
    using S = typename V::Scalar;
    using Vec = typename V::Vector;
    static constexpr int W = V::width, NV = 2, L = W * NV;

    const Job& job;
    Decoder<V> decoder;
    std::vector<S> hidden, kept, raw, colour, g_raw, g_position;
    int64_t batch = 0, first = 0;
    int live = 0;

    Points(const Job& j, bool back) : job(j), decoder(j, back) {
        hidden.resize(size_t(j.hidden) * L);
        kept.assign(size_t(L) * decoder.CW, S(0));
        raw.resize(L);
        colour.resize(size_t(j.features) * L + L);
        g_raw.resize(L);
        g_position.resize(3 * L);
    }

    static int64_t per_entry(const Job& job) { return (job.rays + L - 1) / L; }
    static int64_t count(const Job& job) { return job.batch * per_entry(job); }

    // Points of a slab, after which the next one of the same entry is expected.
    void pick(int64_t slab) {
        const int64_t within = slab % per_entry(job);
        batch = slab / per_entry(job);
        first = batch * job.rays + within * L;
        live = int(std::min<int64_t>(L, job.rays - within * L));
        decoder.go(int(within), within + 1 < per_entry(job) ? int(within + 1) : -1, [&](int64_t number, S* position) {
            const S* points = (const S*)job.origins + batch * job.rays * 3;
            for (int l = 0; l < L; ++l)
                for (int i = 0; i < 3; ++i) position[i * L + l] = points[std::min(number * L + l, job.rays - 1) * 3 + i];
        });
    }

    void look(int64_t slab) {
        pick(slab);
        decoder.look(decoder.planes_of(batch), false, hidden.data(), kept.data(), raw.data());
        for (int l = 0; l < live; ++l) ((S*)job.raw)[first + l] = raw[l];
        if (!job.feature_values) return;
        decoder.colours(hidden.data(), colour.data());
        for (int l = 0; l < live; ++l)
            for (int f = 0; f < job.features; ++f)
                ((S*)job.feature_values)[(first + l) * job.features + f] = colour[f * L + l];
    }

    void back(int64_t slab, S* g_planes) {
        pick(slab);
        decoder.look(decoder.planes_of(batch), false, hidden.data(), kept.data(), raw.data());
        decoder.colours(hidden.data(), colour.data());
        for (int l = 0; l < L; ++l) g_raw[l] = l < live ? ((const S*)job.g_raw)[first + l] : S(0);
        for (int f = 0; f < job.features; ++f)
            for (int l = 0; l < L; ++l) {
                S g = l < live ? ((const S*)job.g_features)[(first + l) * job.features + f] : S(0);
                decoder.g_x[(f + 1) * L + l] = g * activate_slope(job.activation, colour[f * L + l]);
            }
        std::fill(g_position.begin(), g_position.end(), S(0));
        decoder.back(decoder.planes_of(batch), g_planes ? g_planes + batch * job.entry_stride : nullptr, false,
                     hidden.data(), kept.data(), g_raw.data(), job.g_w1 != nullptr,
                     job.g_origins ? g_position.data() : nullptr);
        if (job.g_origins)
            for (int l = 0; l < live; ++l)
                for (int i = 0; i < 3; ++i) ((S*)job.g_origins)[(first + l) * 3 + i] = g_position[i * L + l];
    }
};

// [planes][channels][texels] to [planes][texels][padded], planes a .. b; the padding becomes zero.
template <class V> int pack(const void* from, void* to, int64_t a, int64_t b, int channels, int padded, int64_t texels) {
    using S = typename V::Scalar;
    constexpr int W = V::width;
    const int whole = channels / W * W;
    for (int64_t p = a; p < b; ++p) {
        const S* in = (const S*)from + p * channels * texels;
        S* out = (S*)to + p * texels * padded;
        for (int64_t t = 0; t < texels; t += W) {
            int many = int(std::min<int64_t>(W, texels - t)), c = 0;
            if (many == W)
                for (; c < whole; c += W) V::transpose(in + c * texels + t, int(texels), out + t * padded + c, padded);
            for (; c < padded; ++c)
                for (int i = 0; i < many; ++i) out[(t + i) * padded + c] = c < channels ? in[c * texels + t + i] : S(0);
        }
    }
    return 0;
}

template <class V> int unpack(const void* from, void* to, int64_t a, int64_t b, int channels, int padded, int64_t texels) {
    using S = typename V::Scalar;
    constexpr int W = V::width;
    const int whole = channels / W * W;
    for (int64_t p = a; p < b; ++p) {
        const S* in = (const S*)from + p * texels * padded;
        S* out = (S*)to + p * channels * texels;
        for (int64_t t = 0; t < texels; t += W) {
            int many = int(std::min<int64_t>(W, texels - t)), c = 0;
            if (many == W)
                for (; c < whole; c += W) V::transpose(in + t * padded + c, padded, out + c * texels + t, int(texels));
            for (; c < channels; ++c)
                for (int i = 0; i < many; ++i) out[c * texels + t + i] = in[(t + i) * padded + c];
        }
    }
    return 0;
}

}  // namespace gi
