// Sums over samples on a GPU: features along a ray, and the way back through decoder and lookup.
//
// Atomic adds bind the backward pass, so they are merged first: the samples of a warp that lie in one cell of a plane
// are summed by one group of lanes, and only the sum goes to memory. The list of samples is made of bricks of
// vertical neighbours by depths (gi_list), of which many share a cell in every plane.
#pragma once

#include "device.cuh"

namespace gi {

__device__ inline void add4(float* to, float4 v) {
#if __CUDA_ARCH__ >= 900 && (__CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 1))
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(v.x),
                 "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
#else
    atomicAdd(to, v.x), atomicAdd(to + 1, v.y), atomicAdd(to + 2, v.z), atomicAdd(to + 3, v.w);
#endif
}

// total[ray] += share * features, for the warp's samples; those of one ray that follow each other are summed first.
__device__ inline void sum_by_ray(float* room, int lane, int64_t ray, float share, const float (&out)[OP], float* total) {
    constexpr int wide = F < CP ? F : CP;  // the room holds rows of CP features
    for (int start = 0; start < F; start += wide) {
#pragma unroll
        for (int k = 0; k < F; ++k)
            if (k >= start && k < start + wide)
                room[lane * ROW + k - start] = share * activate(GI_ACTIVATION, out[k + 1]);
        __syncwarp();
        const int width = min(wide, F - start);
        for (int base = 0; base < width; base += 32) {
            float sum = 0.f;
            for (int s = 0; s < 32; ++s) {
                const int64_t own = __shfl_sync(ALL, ray, s), next = s < 31 ? __shfl_sync(ALL, ray, s + 1) : -2;
                if (base + lane < width) sum += room[s * ROW + base + lane];
                if (own == next) continue;
                if (own >= 0 && base + lane < width) atomicAdd(total + own * F + start + base + lane, sum);
                sum = 0.f;
            }
        }
        __syncwarp();
    }
}

struct Back {        // what else a warp needs on the way back
    float* out;      // [32][OUT] gradients of the decoder's outputs
    float* units;    // [32][8]: four hidden units, then their gradients
    float* position; // [32][3] gradient by the point
    unsigned* members;  // [32]: lanes that share a cell
    int* leaders;       // [32]: the first lane of every cell
    static constexpr int floats = 32 * OUT + 32 * 8 + 32 * 3 + 64;
    __device__ explicit Back(float* at)
        : out(at), units(out + 32 * OUT), position(units + 32 * 8), members((unsigned*)(position + 32 * 3)),
          leaders((int*)members + 32) {}
};

// g_planes += weight times slab.rows, merged by cell.
__device__ inline void scatter(float* g_planes, Slab slab, Back back, int lane) {
    const int part = lane % G;
    for (int p = 0; p < P; ++p) {
        const int* own = slab.index + (lane * P + p) * TAPS;
        const unsigned long long cell = (unsigned long long)(unsigned)own[0] << 32 | (unsigned)own[TAPS - 1];
        const unsigned members = __match_any_sync(ALL, cell);
        const bool leads = !(members & ((1u << lane) - 1u));
        const unsigned leading = __ballot_sync(ALL, leads);
        back.members[lane] = members;
        if (leads) back.leaders[__popc(leading & ((1u << lane) - 1u))] = lane;
        __syncwarp();
        const int cells = __popc(leading);
        for (int r = lane / G; r < cells; r += 32 / G) {
            const int leader = back.leaders[r];
            float4 sum[TAPS];
            float weights[TAPS];
            for (int k = 0; k < TAPS; ++k) sum[k] = make_float4(0.f, 0.f, 0.f, 0.f), weights[k] = 0.f;
            if (part < CP / 4) {
                for (unsigned left = back.members[leader]; left; left &= left - 1) {
                    const int s = __ffs(int(left)) - 1;
                    const float4 g = *(const float4*)(slab.rows + s * ROW + part * 4);
#pragma unroll
                    for (int k = 0; k < TAPS; ++k) {
                        const float w = slab.weight[(s * P + p) * TAPS + k];
                        weights[k] += w;
                        sum[k].x = fmaf(w, g.x, sum[k].x);
                        sum[k].y = fmaf(w, g.y, sum[k].y);
                        sum[k].z = fmaf(w, g.z, sum[k].z);
                        sum[k].w = fmaf(w, g.w, sum[k].w);
                    }
                }
                for (int k = 0; k < TAPS; ++k)
                    if (weights[k] != 0.f) add4(g_planes + slab.index[(leader * P + p) * TAPS + k] + part * 4, sum[k]);
            }
        }
        __syncwarp();
    }
}

// Gradient of the lookup by the point, times slab.rows, to back.position. x: this lane's point.
__device__ inline void pull(const Job& job, Slab slab, Back back, const float* x, int lane) {
    const int part = lane % G;
    for (int round = 0; round < G; ++round) {
        const int s = round * (32 / G) + lane / G;
        float at_point[3], sum[3] = {0.f, 0.f, 0.f};
        for (int i = 0; i < 3; ++i) at_point[i] = __shfl_sync(ALL, x[i], s);
        for (int p = 0; p < P; ++p) {
            float at[3], slope[3] = {0.f, 0.f, 0.f}, weight[3][2], side[3][2];
            project(job, p, at_point, at);
            for (int d = 0; d < DIMS; ++d) {
                const float size = float(plane_size(job, d));
                const Taps<float> t = taps(at[d], size);
                weight[d][0] = t.weight_low, weight[d][1] = t.weight_high;
                // a texel outside weighs nothing, and does not change that
                const float low = floorf((at[d] + 1.f) * (size * 0.5f) - 0.5f);
                side[d][0] = low >= 0.f && low <= size - 1.f ? -1.f : 0.f;
                side[d][1] = low >= -1.f && low <= size - 2.f ? 1.f : 0.f;
            }
            for (int k = 0; k < TAPS; ++k) {
                float dot = 0.f;
                if (part < CP / 4) {
                    const float* texel = (const float*)job.plane_data + slab.index[(s * P + p) * TAPS + k];
                    const float4 v = __ldg((const float4*)texel + part);
                    const float4 g = *(const float4*)(slab.rows + s * ROW + part * 4);
                    dot = v.x * g.x + v.y * g.y + v.z * g.z + v.w * g.w;
                }
                for (int d = 0; d < DIMS; ++d) {
                    float w = side[d][k >> d & 1];
                    for (int e = 0; e < DIMS; ++e)
                        if (e != d) w *= weight[e][k >> e & 1];
                    slope[d] = fmaf(w, dot, slope[d]);
                }
            }
            const float* m = (const float*)job.maps + p * 9;
            for (int d = 0; d < DIMS; ++d)
                for (int i = 0; i < 3; ++i)
                    sum[i] = fmaf(slope[d] * float(plane_size(job, d)) * (0.5f / P), m[i * 3 + d], sum[i]);
        }
        for (int i = 0; i < 3; ++i) {
            for (int far = G / 2; far; far /= 2) sum[i] += __shfl_xor_sync(ALL, sum[i], far);
            if (part == 0) back.position[s * 3 + i] = sum[i];
        }
    }
    __syncwarp();
}

// The gradients of the decoder's weights of a whole block, added up in shared memory.
struct WeightSums {
    float *w1, *w2, *b1, *b2;  // as in Weights
    static constexpr int floats = Weights::floats;
    __device__ explicit WeightSums(float* at) : w1(at), w2(w1 + H * CP), b1(w2 + H * OP), b2(b1 + (H + 3) / 4 * 4) {}
    __device__ void clear() {
        for (int i = threadIdx.x; i < floats; i += blockDim.x) w1[i] = 0.f;
    }
    // Units j .. j + 4 of the warp's samples, from back.units, features and output gradients.
    __device__ void add(int j, Slab slab, Back back, int lane) {
        for (int base = 0; base < CP + OP + 1; base += 32) {  // a column each: features, outputs, and one for b1
            const int column = base + lane;
            if (column > CP + OP) continue;
            float sum[4] = {0.f, 0.f, 0.f, 0.f};
            const bool outputs = column >= CP && column < CP + OP;
            for (int s = 0; s < 32; ++s) {
                const float* units = back.units + s * 8 + (outputs ? 0 : 4);
                const float v = column < CP ? slab.rows[s * ROW + column] : outputs ? back.out[s * OUT + column - CP] : 1.f;
                for (int k = 0; k < 4; ++k) sum[k] = fmaf(units[k], v, sum[k]);
            }
            for (int k = 0; k < 4 && j + k < H; ++k) {
                float* to = column < CP ? w1 + (j + k) * CP + column : outputs ? w2 + (j + k) * OP + column - CP : b1 + j + k;
                atomicAdd(to, sum[k]);
            }
        }
    }
    __device__ void add_bias(Back back, int lane) {
        for (int k = lane; k < OP; k += 32) {
            float sum = 0.f;
            for (int s = 0; s < 32; ++s) sum += back.out[s * OUT + k];
            atomicAdd(b2 + k, sum);
        }
    }
    __device__ void deliver(const Job& job) {
        __syncthreads();
        for (int i = threadIdx.x; i < H * CP; i += blockDim.x)
            if (i % CP < C) atomicAdd((float*)job.g_w1 + i / CP * C + i % CP, w1[i]);
        for (int i = threadIdx.x; i < H * OP; i += blockDim.x)
            if (i % OP < O) atomicAdd((float*)job.g_w2 + i % OP * H + i / OP, w2[i]);
        for (int i = threadIdx.x; i < H; i += blockDim.x) atomicAdd((float*)job.g_b1 + i, b1[i]);
        for (int i = threadIdx.x; i < O; i += blockDim.x) atomicAdd((float*)job.g_b2 + i, b2[i]);
    }
};

// One sample a lane, all the way back. MARCH: `count` listed samples of rays; else points.
// Shared memory: Weights, then (Slab, Back) of every warp, then WeightSums where the decoder wants a gradient.
template <bool MARCH>
__device__ inline void back_through_decoder(const Job& job, const Launch& at, int64_t count, float* shared) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    Weights weights(shared);
    float* own = shared + Weights::floats + threadIdx.x / 32 * (Slab::floats + Back::floats);
    Slab slab(own);
    Back back(own + Slab::floats);
    WeightSums sums(shared + Weights::floats + warps * (Slab::floats + Back::floats));
    const bool decoder = job.g_w1 != nullptr;
    if (decoder) sums.clear();
    weights.load(job);
    const int64_t stride = int64_t(gridDim.x) * warps * 32;
    for (int64_t first = (int64_t(blockIdx.x) * warps + threadIdx.x / 32) * 32; first < count; first += stride) {
        const bool live = first + lane < count;
        const int64_t item = live ? first + lane : count - 1;
        float x[3], f[1][CP], g_row[CP], out[1][OP], depth = 0.f, share = 1.f, g_raw;
        int64_t ray = item;
        int entry;
        const float* g_features;
        if (MARCH) {
            const int code = at.list[item], slot = code % at.slots;
            ray = ray_of(job, at, slot);
            entry = int(ray / job.rays);
            depth = at.z[code];
            share = at.coefficient[code];
            g_raw = at.gradient[code];
            g_features = (const float*)job.g_total + ray * F;
            place(job, ray, depth, x);
        } else {
            entry = int(item / job.rays);
            for (int i = 0; i < 3; ++i) x[i] = ((const float*)job.origins)[item * 3 + i];
            g_raw = ((const float*)job.g_raw)[item];
            g_features = (const float*)job.g_features + item * F;
        }
        if (!live) share = g_raw = 0.f;
        locate(job, entry, x, slab, lane);
        gather((const float*)job.plane_data, slab, lane);
        take_row(slab, lane, f[0]);
        if (GI_ACTIVATION != ACTIVATION_NONE) decode<1>(weights, f, out);
#pragma unroll
        for (int k = 1; k < OP; ++k) {
            const float g = k < O && live ? share * g_features[k - 1] : 0.f;
            out[0][k] = k < O ? g * activate_slope(GI_ACTIVATION, activate(GI_ACTIVATION, out[0][k])) : 0.f;
        }
        if (MARCH && cropped(job, x)) g_raw = 0.f;
        const float pull_raw = GI_DENSITY == DENSITY_SDF ? g_raw / length_of(x) : 0.f;  // of |x|, times x
        out[0][0] = GI_DENSITY == DENSITY_SDF ? g_raw * float(job.distance_scale) : g_raw;
        if (decoder) {
#pragma unroll
            for (int k = 0; k < OP; ++k) back.out[lane * OUT + k] = out[0][k];
            __syncwarp();
            sums.add_bias(back, lane);
        }
#pragma unroll
        for (int c = 0; c < CP; ++c) g_row[c] = 0.f;
        for (int j = 0; j < H; ++j) {
            float pre[1], g = 0.f;
            hidden<1>(weights, j, f, pre);
            const float h = softplus_(pre[0]);
#pragma unroll
            for (int k = 0; k < OP; k += 4) {
                const float4 v = *(const float4*)(weights.w2 + j * OP + k);
                g = fmaf(v.x, out[0][k], g);
                g = fmaf(v.y, out[0][k + 1], g);
                g = fmaf(v.z, out[0][k + 2], g);
                g = fmaf(v.w, out[0][k + 3], g);
            }
            g *= softplus_slope(h);
#pragma unroll
            for (int c = 0; c < CP; c += 4) {
                const float4 v = *(const float4*)(weights.w1 + j * CP + c);
                g_row[c] = fmaf(v.x, g, g_row[c]);
                g_row[c + 1] = fmaf(v.y, g, g_row[c + 1]);
                g_row[c + 2] = fmaf(v.z, g, g_row[c + 2]);
                g_row[c + 3] = fmaf(v.w, g, g_row[c + 3]);
            }
            if (!decoder) continue;
            back.units[lane * 8 + j % 4] = h;
            back.units[lane * 8 + 4 + j % 4] = g;
            if (j % 4 == 3 || j == H - 1) {
                __syncwarp();
                sums.add(j - j % 4, slab, back, lane);
                __syncwarp();
            }
        }
        if (!job.g_planes && !job.g_origins) continue;
        __syncwarp();
#pragma unroll
        for (int c = 0; c < CP; c += 4)
            *(float4*)(slab.rows + lane * ROW + c) = make_float4(g_row[c], g_row[c + 1], g_row[c + 2], g_row[c + 3]);
        __syncwarp();
        if (job.g_planes) scatter((float*)job.g_planes, slab, back, lane);
        if (!job.g_origins) continue;
        pull(job, slab, back, x, lane);
        for (int i = 0; i < 3 && live; ++i) {
            const float g = back.position[lane * 3 + i] + pull_raw * x[i];
            if (MARCH) {
                atomicAdd((float*)job.g_origins + ray * 3 + i, g);
                atomicAdd((float*)job.g_directions + ray * 3 + i, depth * g);
            } else {
                ((float*)job.g_origins)[item * 3 + i] = g;
            }
        }
        __syncwarp();
    }
    if (decoder) sums.deliver(job);
}

}  // namespace gi
