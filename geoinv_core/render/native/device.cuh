// Lookup and decoder on a GPU: a warp decodes 32 samples at a time, one per lane.
//
// Texels are fetched together: G lanes read one texel's row of channels as float4, so that a row costs one line of the
// cache instead of 32. Rows are then turned through shared memory to the lanes that own the samples, whose registers
// hold the features, and the decoder's weights are broadcast from shared memory to all samples of a lane.
//
// The shape of the field is known when this is compiled: GI_CHANNELS, GI_HIDDEN, GI_FEATURES, GI_PLANES, GI_DIMS (2, or
// 3 for a tri-grid), GI_DENSITY, GI_ACTIVATION.
#pragma once

#include "field.h"
#include "job.h"

#ifndef GI_SHARED  // the tests run this on a CPU and have their own
#define GI_SHARED extern __shared__ float4 shared[]
#endif

namespace gi {

constexpr int C = GI_CHANNELS, H = GI_HIDDEN, F = GI_FEATURES, P = GI_PLANES, DIMS = GI_DIMS, TAPS = 1 << DIMS;
constexpr int O = F + 1;  // decoder outputs: row 0, then features
constexpr int CP = (C + 3) / 4 * 4, OP = (O + 3) / 4 * 4;
// rows of shared memory are an odd number of float4 apart: lanes then meet in different banks
GI_HD constexpr int odd(int floats) { return floats / 4 % 2 ? floats : floats + 4; }
constexpr int ROW = odd(CP), OUT = odd(OP);
GI_HD constexpr int lanes_for(int quads, int lanes = 1) {
    return lanes >= quads || lanes == 32 ? lanes : lanes_for(quads, lanes * 2);
}
constexpr int G = lanes_for(CP / 4);  // lanes that read one texel
static_assert(CP <= 128, "one pass of a warp over a texel");
constexpr unsigned ALL = 0xffffffffu;

// One launch: a run of rays in the order of slots (see ray_of), and room to work. Arrays are [n][slots].
struct Launch {
    int64_t first;       // slot, counted over all entries
    int32_t slots;       // of this launch, a multiple of 32
    int32_t per_entry;   // slots of one entry, a multiple of 32
    int32_t from, count; // samples to decode (gi_raw)
    float *z, *raw, *coefficient, *through, *gradient;  // z, raw, coefficient, gradient in the order of sampling
    int32_t *order;      // of the sorted samples
    int32_t *list, *listed;  // samples that count, as sample * slots + slot, and how many
};

// ---- shared memory ---------------------------------------------------------------------------------

struct Weights {  // of the decoder, as the loops read them
    float *w1;    // [H][CP], zero padded
    float *w2;    // [H][OP], transposed and zero padded
    float *b1, *b2;
    static constexpr int floats = H * CP + H * OP + (H + 3) / 4 * 4 + OP;
    __device__ explicit Weights(float* at) : w1(at), w2(w1 + H * CP), b1(w2 + H * OP), b2(b1 + (H + 3) / 4 * 4) {}
    __device__ void load(const Job& job) {
        const float *a = (const float*)job.w1, *b = (const float*)job.w2;
        for (int i = threadIdx.x; i < H * CP; i += blockDim.x) w1[i] = i % CP < C ? a[i / CP * C + i % CP] : 0.f;
        for (int i = threadIdx.x; i < H * OP; i += blockDim.x) w2[i] = i % OP < O ? b[i % OP * H + i / OP] : 0.f;
        for (int i = threadIdx.x; i < H; i += blockDim.x) b1[i] = ((const float*)job.b1)[i];
        for (int i = threadIdx.x; i < OP; i += blockDim.x) b2[i] = i < O ? ((const float*)job.b2)[i] : 0.f;
        __syncthreads();
    }
};

struct Slab {      // what a warp knows of its 32 samples
    float* rows;   // [32][ROW] features, later their gradients
    float* weight; // [32][P][TAPS]
    int* index;    // [32][P][TAPS], offsets in numbers from the first plane of the first entry
    static constexpr int floats = 32 * ROW + 2 * 32 * P * TAPS;
    __device__ explicit Slab(float* at) : rows(at), weight(at + 32 * ROW), index((int*)(weight + 32 * P * TAPS)) {}
};

// ---- lookup ----------------------------------------------------------------------------------------

__device__ inline void project(const Job& job, int p, const float* x, float* at) {
    const float* m = (const float*)job.maps + p * 9;
    for (int d = 0; d < DIMS; ++d) at[d] = fmaf(x[2], m[6 + d], fmaf(x[1], m[3 + d], x[0] * m[d]));
}

__device__ inline int plane_size(const Job& job, int d) { return d == 0 ? job.width : d == 1 ? job.height : job.depth; }

// Texels and weights of this lane's sample at world point x of an entry.
__device__ inline void locate(const Job& job, int entry, const float* x, Slab slab, int lane) {
    for (int p = 0; p < P; ++p) {
        float at[3];
        project(job, p, x, at);
        Taps<float> t[3];
        for (int d = 0; d < DIMS; ++d) t[d] = taps(at[d], float(plane_size(job, d)));
        const int base = int(entry * job.entry_stride + p * job.plane_stride);
        for (int k = 0; k < TAPS; ++k) {
            float w = (k & 1 ? t[0].weight_high : t[0].weight_low) * (k & 2 ? t[1].weight_high : t[1].weight_low);
            int i = int(k & 2 ? t[1].high : t[1].low);
            if (DIMS == 3) {
                w *= k & 4 ? t[2].weight_high : t[2].weight_low;
                i += int(k & 4 ? t[2].high : t[2].low) * job.height;
            }
            i = i * job.width + int(k & 1 ? t[0].high : t[0].low);
            slab.weight[(lane * P + p) * TAPS + k] = w * (1.f / P);
            slab.index[(lane * P + p) * TAPS + k] = base + i * int(job.texel_stride);
        }
    }
}

// Mean features of the warp's samples to slab.rows.
__device__ inline void gather(const float* planes, Slab slab, int lane) {
    __syncwarp();
    const int part = lane % G;
    for (int round = 0; round < G; ++round) {
        const int s = round * (32 / G) + lane / G;
        if (part < CP / 4) {
            float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
            for (int k = 0; k < P * TAPS; ++k) {
                const float w = slab.weight[s * P * TAPS + k];
                const float4 v = __ldg((const float4*)(planes + slab.index[s * P * TAPS + k]) + part);
                sum.x = fmaf(w, v.x, sum.x);
                sum.y = fmaf(w, v.y, sum.y);
                sum.z = fmaf(w, v.z, sum.z);
                sum.w = fmaf(w, v.w, sum.w);
            }
            *(float4*)(slab.rows + s * ROW + part * 4) = sum;
        }
    }
    __syncwarp();
}

__device__ inline void take_row(Slab slab, int lane, float* f) {
#pragma unroll
    for (int c = 0; c < CP; c += 4) {
        const float4 v = *(const float4*)(slab.rows + lane * ROW + c);
        f[c] = v.x, f[c + 1] = v.y, f[c + 2] = v.z, f[c + 3] = v.w;
    }
}

// ---- decoder ---------------------------------------------------------------------------------------

// Hidden unit j of S samples, before softplus.
template <int S> __device__ inline void hidden(const Weights& w, int j, const float (&f)[S][CP], float (&pre)[S]) {
#pragma unroll
    for (int i = 0; i < S; ++i) pre[i] = w.b1[j];
#pragma unroll
    for (int c = 0; c < CP; c += 4) {
        const float4 v = *(const float4*)(w.w1 + j * CP + c);
#pragma unroll
        for (int i = 0; i < S; ++i) {
            pre[i] = fmaf(v.x, f[i][c], pre[i]);
            pre[i] = fmaf(v.y, f[i][c + 1], pre[i]);
            pre[i] = fmaf(v.z, f[i][c + 2], pre[i]);
            pre[i] = fmaf(v.w, f[i][c + 3], pre[i]);
        }
    }
}

// Row 0 of S samples.
template <int S> __device__ inline void decode_row0(const Weights& w, const float (&f)[S][CP], float (&row0)[S]) {
    for (int i = 0; i < S; ++i) row0[i] = w.b2[0];
    for (int j = 0; j < H; ++j) {
        float pre[S];
        hidden<S>(w, j, f, pre);
        const float v = w.w2[j * OP];
#pragma unroll
        for (int i = 0; i < S; ++i) row0[i] = fmaf(v, softplus_(pre[i]), row0[i]);
    }
}

// All rows of S samples, before the activation.
template <int S> __device__ inline void decode(const Weights& w, const float (&f)[S][CP], float (&out)[S][OP]) {
#pragma unroll
    for (int k = 0; k < OP; ++k)
        for (int i = 0; i < S; ++i) out[i][k] = w.b2[k];
    for (int j = 0; j < H; ++j) {
        float h[S];
        hidden<S>(w, j, f, h);
        for (int i = 0; i < S; ++i) h[i] = softplus_(h[i]);
#pragma unroll
        for (int k = 0; k < OP; k += 4) {
            const float4 v = *(const float4*)(w.w2 + j * OP + k);
#pragma unroll
            for (int i = 0; i < S; ++i) {
                out[i][k] = fmaf(v.x, h[i], out[i][k]);
                out[i][k + 1] = fmaf(v.y, h[i], out[i][k + 1]);
                out[i][k + 2] = fmaf(v.z, h[i], out[i][k + 2]);
                out[i][k + 3] = fmaf(v.w, h[i], out[i][k + 3]);
            }
        }
    }
}

__device__ inline float length_of(const float* x) {
    return sqrtf(fmaf(x[0], x[0], fmaf(x[1], x[1], fmaf(x[2], x[2], 1e-20f))));
}

__device__ inline bool cropped(const Job& job, const float* x) {
    const float limit = float(job.crop_limit);
    return job.crop && !(fabsf(x[0]) <= limit && fabsf(x[2]) <= limit);
}

// Row 0 to raw density or distance; the crop applies to marching only.
__device__ inline float raw_of(const Job& job, bool march, const float* x, float row0) {
    if (GI_DENSITY == DENSITY_SDF) row0 = fmaf(float(job.distance_scale), row0, length_of(x) - float(job.distance_radius));
    return march && cropped(job, x) ? -1e3f : row0;
}

// ---- rays ------------------------------------------------------------------------------------------

// Ray of a slot, counted over all entries, or -1. In a picture 32 slots are a tile of 8 x 4 rays, column by column:
// they meet the same texels, and four in a row are vertical neighbours (see scatter.cuh).
__device__ inline int64_t ray_of(const Job& job, const Launch& at, int slot) {
    const int64_t global = at.first + slot, entry = global / at.per_entry;
    const int local = int(global % at.per_entry);
    if (entry >= job.batch) return -1;
    int64_t ray = local;
    if (job.image_width) {
        const int across = (job.image_width + 7) / 8, tile = local / 32, k = local % 32;
        const int x = tile % across * 8 + k / 4, y = tile / across * 4 + k % 4;
        ray = x < job.image_width ? int64_t(y) * job.image_width + x : job.rays;
    }
    return ray < job.rays ? entry * job.rays + ray : -1;
}

// World point of a sample at depth z of a ray; rays that are none stand at the origin.
__device__ inline void place(const Job& job, int64_t ray, float z, float* x) {
    for (int i = 0; i < 3; ++i)
        x[i] = ray < 0 ? 0.f : ((const float*)job.origins)[ray * 3 + i] + z * ((const float*)job.directions)[ray * 3 + i];
}

}  // namespace gi
