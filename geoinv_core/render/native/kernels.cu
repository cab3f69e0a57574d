// The CUDA renderer: C ABI, one Job and one Launch by value. Compiled by NVRTC for one shape of field at a time.
//
// A picture is a row of short kernels over samples or over rays, with the few numbers of every sample in between in
// global memory: gi_raw (coarse), gi_draw, gi_raw (fine), gi_march, gi_list, gi_colours. Backwards the same, then
// gi_march_back and gi_decode_back. Kernels over samples decode 32 at a time per warp (device.cuh).
#include "device.cuh"
#include "scatter.cuh"

#ifndef GI_RAW_SAMPLES  // samples that a lane decodes together: weights are fetched once for all of them
#define GI_RAW_SAMPLES (CP <= 32 ? 4 : CP <= 64 ? 2 : 1)
#endif
#ifndef GI_COLOUR_SAMPLES
#define GI_COLOUR_SAMPLES (CP + OP <= 72 ? 2 : 1)
#endif
#define GI_KERNEL extern "C" __global__ void __launch_bounds__(128)

namespace gi {

struct Block {  // the usual shared memory: weights, then one slab per warp
    Weights weights;
    Slab slab;
    int lane, warp, warps;
    __device__ explicit Block(float* shared)
        : weights(shared), slab(shared + Weights::floats + threadIdx.x / 32 * Slab::floats), lane(threadIdx.x % 32),
          warp(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), warps(gridDim.x * (blockDim.x / 32)) {}
};

__device__ inline int entry_of(const Job& job, const Launch& at, int slot) {
    const int64_t entry = (at.first + slot) / at.per_entry;
    return int(entry < job.batch ? entry : job.batch - 1);
}

// Density rule and opacity of the interval between two sorted samples.
struct Interval {
    float step, middle, sigma, alpha;
    __device__ Interval(float beta, float z0, float z1, float raw0, float raw1)
        : step(z1 - z0), middle((raw1 + raw0) * 0.5f), sigma(density(GI_DENSITY, middle, beta)),
          alpha(interval_alpha(sigma, step)) {}
};

__device__ inline bool counts(const Job& job, float share) { return job.skip <= 0 || !(share <= float(job.skip)); }

}  // namespace gi

using namespace gi;

// Raw values of samples from .. from + count of every slot; coarse depths are made here.
GI_KERNEL gi_raw(const Job job, const Launch at) {
    GI_SHARED;
    constexpr int S = GI_RAW_SAMPLES;
    Block block((float*)shared);
    block.weights.load(job);
    const int items = at.count * at.slots;
    for (int first = block.warp * 32 * S; first < items; first += block.warps * 32 * S) {
        float f[S][CP], x[S][3], row0[S];
#pragma unroll
        for (int i = 0; i < S; ++i) {
            const int item = min(first + i * 32, items - 32) + block.lane;  // a warp's items are one sample of 32 slots
            const int s = at.from + item / at.slots, slot = item % at.slots;
            const int64_t ray = ray_of(job, at, slot);
            float z = 0.f;
            if (s >= job.coarse) z = at.z[s * at.slots + slot];
            else {
                if (ray >= 0) {
                    const float jitter = job.u_coarse ? ((const float*)job.u_coarse)[ray * job.coarse + s] : float(job.jitter);
                    z = coarse_depth(((const float*)job.near)[ray], ((const float*)job.far)[ray], s, job.coarse, jitter,
                                     job.disparity != 0);
                }
                at.z[s * at.slots + slot] = z;
            }
            place(job, ray, z, x[i]);
            locate(job, entry_of(job, at, slot), x[i], block.slab, block.lane);
            gather((const float*)job.plane_data, block.slab, block.lane);
            take_row(block.slab, block.lane, f[i]);
            __syncwarp();
        }
        decode_row0<S>(block.weights, f, row0);
#pragma unroll
        for (int i = 0; i < S; ++i) {
            const int item = min(first + i * 32, items - 32) + block.lane;
            at.raw[at.from * at.slots + item] = raw_of(job, true, x[i], row0[i]);
        }
    }
}

// Fine depths from the coarse weights, one thread a ray; `coefficient` serves as the distribution.
GI_KERNEL gi_draw(const Job job, const Launch at) {
    const int slot = blockIdx.x * blockDim.x + threadIdx.x, N = at.slots;
    if (slot >= N) return;
    const int64_t ray = ray_of(job, at, slot);
    float *z = at.z + slot, *raw = at.raw + slot, *cdf = at.coefficient + slot;
    const float beta = *(const float*)job.beta;
    const int bins = job.coarse - 1, last = bins - 2;
    float through = 1.f, before = 0.f, own = 0.f, sum = 0.f;
    for (int i = 0; i < bins; ++i) {
        const Interval interval(beta, z[i * N], z[(i + 1) * N], raw[i * N], raw[(i + 1) * N]);
        const float after = interval.alpha * through;
        if (i >= 2) {
            const float mass = smooth_weight(before, own, after) + 1e-5f;
            cdf[(i - 1) * N] = mass;
            sum += mass;
        }
        before = own, own = after;
        through = pass_on(through, interval.alpha);
    }
    float run = 0.f;
    cdf[0] = 0.f;
    for (int i = 1; i <= last; ++i) {
        run += cdf[i * N] / sum;
        cdf[i * N] = run;
    }
    int right = 0;  // entries of cdf that are <= u
    for (int i = 0; i < job.fine; ++i) {
        const float even = (float(i) + 0.5f) / float(job.fine);
        const float u = job.u_fine && ray >= 0 ? ((const float*)job.u_fine)[ray * job.fine + i] : even;  // sorted
        while (right <= last && !(cdf[right * N] > u)) ++right;
        const int below = max(right - 1, 0), above = min(right, last);
        const float low = cdf[below * N];
        float span = cdf[above * N] - low;
        if (!(span >= 1e-5f)) span = 1.f;
        const float z0 = (z[below * N] + z[(below + 1) * N]) * 0.5f, z1 = (z[above * N] + z[(above + 1) * N]) * 0.5f;
        const float found = z0 + (u - low) / span * (z1 - z0);
        int k = job.coarse + i;
        for (; k > job.coarse && z[(k - 1) * N] > found; --k) z[k * N] = z[(k - 1) * N];
        z[k * N] = found;
    }
}

// Sorts and sums one ray a thread. `coefficient`: share of every sample in the picture; `gradient`: how far a change
// of its raw value can be seen, where there is a way back (through is not null).
GI_KERNEL gi_march(const Job job, const Launch at) {
    const int slot = blockIdx.x * blockDim.x + threadIdx.x, N = at.slots;
    if (slot >= N) return;
    const int64_t ray = ray_of(job, at, slot);
    const float beta = *(const float*)job.beta;
    const int n = job.coarse + job.fine;
    float *z = at.z + slot, *raw = at.raw + slot;
    int* order = at.order + slot;
    int a = 0, b = job.coarse;
    for (int i = 0; i < n; ++i) {
        const bool coarse = b >= n || (a < job.coarse && !(z[a * N] > z[b * N]));
        const int from = coarse ? a++ : b++;
        int k = i;  // near > far would leave the coarse ones unsorted
        for (; k > 0 && z[order[(k - 1) * N] * N] > z[from * N]; --k) order[k * N] = order[(k - 1) * N];
        order[k * N] = from;
    }
    float through = 1.f, share = 0.f, seen = 0.f, depth = 0.f, opacity = 0.f, unused = 0.f;
    int low = order[0];
    for (int i = 0; i + 1 < n; ++i) {
        const int high = order[(i + 1) * N];
        const float z0 = z[low * N], z1 = z[high * N];
        const Interval v(beta, z0, z1, raw[low * N], raw[high * N]);
        const float weight = v.alpha * through;
        opacity += weight;
        depth += weight * (z0 + z1) * 0.5f;
        at.coefficient[low * N + slot] = (share + weight) * 0.5f;
        share = weight;
        if (at.through) {
            const float slope = density_slope(GI_DENSITY, v.middle, beta, v.sigma, 1.f, unused);
            const float reach = fabsf(through * v.step * (1.f - v.alpha) * slope);
            at.gradient[low * N + slot] = seen > reach ? seen : reach;
            seen = reach;
            at.through[i * N + slot] = through;
        }
        if (job.weights && ray >= 0) ((float*)job.weights)[ray * (n - 1) + i] = weight;
        if (job.depths && ray >= 0) ((float*)job.depths)[ray * n + i] = z0;
        through = pass_on(through, v.alpha);
        low = high;
    }
    at.coefficient[low * N + slot] = share * 0.5f;
    if (at.through) at.gradient[low * N + slot] = seen;
    if (ray < 0 || at.through) return;
    if (job.depths) ((float*)job.depths)[ray * n + n - 1] = z[low * N];
    ((float*)job.depth_sum)[ray] = depth;
    ((float*)job.opacity)[ray] = opacity;
    ((float*)job.range)[ray * 2] = z[order[0] * N];
    ((float*)job.range)[ray * 2 + 1] = z[low * N];
}

// The samples that count, in bricks of four vertical neighbours by eight depths, whose texels lie together.
GI_KERNEL gi_list(const Job job, const Launch at) {
    __shared__ int warp_count[4], block_start;
    const int n = job.coarse + job.fine, octets = (n + 7) / 8, N = at.slots;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, brick = blockIdx.x * 4 + warp;
    const int slot = brick / octets * 4 + lane / 8, i = brick % octets * 8 + lane % 8;
    int code = 0;
    bool wanted = false;
    if (slot < N && i < n) {
        code = at.order[i * N + slot] * N + slot;
        wanted = counts(job, at.coefficient[code]);
        if (at.through) {
            wanted = wanted || counts(job, at.gradient[code]);
            at.gradient[code] = 0.f;
        }
        wanted = wanted && ray_of(job, at, slot) >= 0;
    }
    const unsigned mask = __ballot_sync(ALL, wanted);
    if (lane == 0) warp_count[warp] = __popc(mask);
    __syncthreads();
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int w = 0; w < 4; ++w) {
            const int own = warp_count[w];
            warp_count[w] = sum;
            sum += own;
        }
        block_start = sum ? atomicAdd(at.listed, sum) : 0;
    }
    __syncthreads();
    if (wanted) at.list[block_start + warp_count[warp] + __popc(mask & ((1u << lane) - 1u))] = code;
}

// Colours of the listed samples: summed into `total`, or, where there is a way back, their gradient by the coefficient.
GI_KERNEL gi_colours(const Job job, const Launch at) {
    GI_SHARED;
    constexpr int S = GI_COLOUR_SAMPLES;
    Block block((float*)shared);
    block.weights.load(job);
    const int listed = *at.listed;
    for (int first = block.warp * 32 * S; first < listed; first += block.warps * 32 * S) {
        float f[S][CP], out[S][OP];
        int code[S];
#pragma unroll
        for (int i = 0; i < S; ++i) {
            float x[3];
            const int item = first + i * 32 + block.lane;
            code[i] = at.list[min(item, listed - 1)];
            const int slot = code[i] % at.slots;
            place(job, ray_of(job, at, slot), at.z[code[i]], x);
            locate(job, entry_of(job, at, slot), x, block.slab, block.lane);
            gather((const float*)job.plane_data, block.slab, block.lane);
            take_row(block.slab, block.lane, f[i]);
            __syncwarp();
            if (item >= listed) code[i] = -1;
        }
        decode<S>(block.weights, f, out);
#pragma unroll
        for (int i = 0; i < S; ++i) {
            const int64_t ray = code[i] < 0 ? -1 : ray_of(job, at, code[i] % at.slots);
            if (at.through) {
                if (ray < 0) continue;
                const float* g = (const float*)job.g_total + ray * F;
                float dot = 0.f;
#pragma unroll
                for (int k = 1; k < O; ++k) dot = fmaf(activate(GI_ACTIVATION, out[i][k]), g[k - 1], dot);
                at.gradient[code[i]] = dot;
            } else {
                const float share = code[i] < 0 ? 0.f : at.coefficient[code[i]];
                sum_by_ray(block.slab.rows, block.lane, ray, share, out[i], (float*)job.total);
            }
        }
    }
}

// From the gradients of a ray's sums, and of its coefficients, to those of its raw values.
GI_KERNEL gi_march_back(const Job job, const Launch at) {
    const int slot = blockIdx.x * blockDim.x + threadIdx.x, N = at.slots;
    const int64_t ray = slot < N ? ray_of(job, at, slot) : -1;
    float d_beta = 0.f;
    if (ray >= 0) {
        const float beta = *(const float*)job.beta;
        const float g_opacity = ((const float*)job.g_opacity)[ray], g_depth = ((const float*)job.g_depth_sum)[ray];
        const int n = job.coarse + job.fine;
        float *z = at.z + slot, *raw = at.raw + slot, *gradient = at.gradient + slot;
        float behind = 0.f, carry = 0.f;
        int high = at.order[(n - 1) * N + slot];
        float g_high = gradient[high * N];
        for (int i = n - 2; i >= 0; --i) {
            const int low = at.order[i * N + slot];
            const float g_low = gradient[low * N], z0 = z[low * N], z1 = z[high * N];
            const Interval v(beta, z0, z1, raw[low * N], raw[high * N]);
            float g = g_opacity + (z0 + z1) * 0.5f * g_depth + (g_low + g_high) * 0.5f;
            g = march_back(v.alpha, at.through[i * N + slot], v.step, g, behind);
            g = density_slope(GI_DENSITY, v.middle, beta, v.sigma, g, d_beta) * 0.5f;
            gradient[high * N] = carry + g;
            carry = g;
            high = low;
            g_high = g_low;
        }
        gradient[high * N] = carry;
    }
    if (!job.g_beta) return;
    for (int far = 16; far; far /= 2) d_beta += __shfl_xor_sync(ALL, d_beta, far);
    if (threadIdx.x % 32 == 0) atomicAdd((float*)job.g_beta, d_beta);
}

// From the gradients of raw values and features to those of decoder, planes and rays, over the listed samples.
GI_KERNEL gi_decode_back(const Job job, const Launch at) {
    GI_SHARED;
    back_through_decoder<true>(job, at, *at.listed, (float*)shared);
}

// ---- points ----------------------------------------------------------------------------------------

GI_KERNEL gi_query(const Job job, const Launch at) {
    GI_SHARED;
    constexpr int S = GI_COLOUR_SAMPLES;
    Block block((float*)shared);
    block.weights.load(job);
    const int64_t points = job.batch * job.rays;
    for (int64_t first = int64_t(block.warp) * 32 * S; first < points; first += int64_t(block.warps) * 32 * S) {
        float f[S][CP], out[S][OP], x[S][3];
#pragma unroll
        for (int i = 0; i < S; ++i) {
            const int64_t id = min(first + i * 32 + block.lane, points - 1);
            for (int d = 0; d < 3; ++d) x[i][d] = ((const float*)job.origins)[id * 3 + d];
            locate(job, int(id / job.rays), x[i], block.slab, block.lane);
            gather((const float*)job.plane_data, block.slab, block.lane);
            take_row(block.slab, block.lane, f[i]);
            __syncwarp();
        }
        if (job.feature_values) {
            decode<S>(block.weights, f, out);
        } else {
            float row0[S];
            decode_row0<S>(block.weights, f, row0);
            for (int i = 0; i < S; ++i) out[i][0] = row0[i];
        }
#pragma unroll
        for (int i = 0; i < S; ++i) {
            const int64_t id = first + i * 32 + block.lane;
            if (id >= points) continue;
            ((float*)job.raw)[id] = raw_of(job, false, x[i], out[i][0]);
            if (!job.feature_values) continue;
#pragma unroll
            for (int k = 1; k < O; ++k) ((float*)job.feature_values)[id * F + k - 1] = activate(GI_ACTIVATION, out[i][k]);
        }
    }
}

GI_KERNEL gi_query_back(const Job job, const Launch at) {
    GI_SHARED;
    back_through_decoder<false>(job, at, int64_t(job.batch) * job.rays, (float*)shared);
}

// ---- lattice ---------------------------------------------------------------------------------------

// A patch of 4 x 4 columns a block, a z per thread: see grid.h for the tables.
GI_KERNEL gi_grid(const Job job, const Launch at) {
    constexpr int E = 4;
    __shared__ float xy[E * E * H];
    const int N = job.resolution, blocks = (N + 15) / 16, runs = (N + 7) / 8, z = blockIdx.z * blockDim.x + threadIdx.x;
    const int x0 = blockIdx.x * E, y0 = blockIdx.y * E, rows = job.row_count, first = job.first_row;  // x from there
    const float *table = (const float*)job.table_xy, *axis = (const float*)job.axis, *w2 = (const float*)job.w2;
    const uint8_t* mask = (const uint8_t*)job.mask;
    for (int i = threadIdx.x; i < E * E * H; i += blockDim.x) {
        const int x = min(x0 + i / H / E, rows - 1), y = min(y0 + i / H % E, N - 1);
        xy[i] = table[(int64_t(x) * N + y) * H + i % H];
    }
    __syncthreads();
    bool wanted = false;
    for (int k = 0; k < E * E && !wanted && z < N; ++k) {
        const int x = x0 + k / E, y = y0 + k % E;
        wanted = x < rows && y < N && (!mask || mask[(int64_t(first + x) * N + y) * runs + z / 8]);
    }
    if (!wanted) return;
    float sum[E][E];
    for (int k = 0; k < E * E; ++k) sum[k / E][k % E] = ((const float*)job.b2)[0];
    for (int j = 0; j < H; ++j) {
        float xz[E], yz[E];
        const float v = w2[j];
#pragma unroll
        for (int k = 0; k < E; ++k) {
            xz[k] = __ldg((const float*)job.table_xz + ((int64_t(min(x0 + k, rows - 1)) * blocks + z / 16) * H + j) * 16 + z % 16);
            yz[k] = __ldg((const float*)job.table_yz + ((int64_t(min(y0 + k, N - 1)) * blocks + z / 16) * H + j) * 16 + z % 16);
        }
#pragma unroll
        for (int k = 0; k < E * E; ++k)
            sum[k / E][k % E] = fmaf(v, softplus_(xy[k * H + j] + (xz[k / E] + yz[k % E])), sum[k / E][k % E]);
    }
#pragma unroll
    for (int k = 0; k < E * E; ++k) {
        const int x = x0 + k / E, y = y0 + k % E;
        if (x >= rows || y >= N || (mask && !mask[(int64_t(first + x) * N + y) * runs + z / 8])) continue;
        const float at_point[3] = {axis[first + x], axis[y], axis[z]};
        ((float*)job.grid)[(int64_t(first + x) * N + y) * N + z] = raw_of(job, false, at_point, sum[k / E][k % E]);
    }
}
