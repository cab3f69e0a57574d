// The CUDA source on a CPU: every thread of a block is a fiber, blocks run one after another.
//
// Fibers switch only where CUDA threads wait for each other, so that a missing or divergent barrier deadlocks (and is
// reported) instead of passing by chance. Shared memory is filled with NaN before and checked for overruns after.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(16) float4 { float x, y, z, w; };
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

enum Place { RUNNING, AT_WARP, AT_BLOCK, DONE };
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    Place place;
    uint64_t value, answer;  // of a warp operation
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current;
static std::vector<float> room;
static void (*body)();

static void wait(Place place) {
    Fiber& own = fibers[current];
    own.place = place;
    swapcontext(&own.context, &scheduler);
}
static void start() {
    body();
    fibers[current].place = DONE;
    swapcontext(&fibers[current].context, &scheduler);
}

// Values of the 32 lanes, once all have come here.
static uint64_t lane_value[64][32];
static const uint64_t* exchange(uint64_t value) {
    const unsigned warp = current / 32;
    fibers[current].value = value;
    wait(AT_WARP);
    return lane_value[warp];
}

static void run_block() {
    const unsigned count = blockDim.x;
    for (unsigned t = 0; t < count; ++t) {
        Fiber& f = fibers[t];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = nullptr;
        f.place = RUNNING;
        makecontext(&f.context, start, 0);
    }
    for (;;) {
        bool ran = false;
        for (unsigned t = 0; t < count; ++t)
            if (fibers[t].place == RUNNING) {
                current = t;
                threadIdx.x = t;
                swapcontext(&scheduler, &fibers[t].context);
                ran = true;
            }
        bool released = false;
        for (unsigned w = 0; w < count / 32; ++w) {
            unsigned here = 0;
            for (unsigned l = 0; l < 32; ++l) here += fibers[w * 32 + l].place == AT_WARP;
            if (here != 32) continue;
            for (unsigned l = 0; l < 32; ++l) lane_value[w][l] = fibers[w * 32 + l].value;
            for (unsigned l = 0; l < 32; ++l) fibers[w * 32 + l].place = RUNNING;
            released = true;
        }
        if (released) continue;
        unsigned at_block = 0, done = 0;
        for (unsigned t = 0; t < count; ++t) at_block += fibers[t].place == AT_BLOCK, done += fibers[t].place == DONE;
        if (done == count) return;
        if (at_block == count) {
            for (unsigned t = 0; t < count; ++t) fibers[t].place = RUNNING;
            continue;
        }
        if (!ran) {
            std::fprintf(stderr, "deadlock: %u at a block's barrier, %u done of %u\n", at_block, done, count);
            std::abort();
        }
    }
}

static float* shared() { return room.data(); }

template <class T> static uint64_t bits(T v) {
    uint64_t b = 0;
    std::memcpy(&b, &v, sizeof v);
    return b;
}
template <class T> static T from_bits(uint64_t b) {
    T v;
    std::memcpy(&v, &b, sizeof v);
    return v;
}

}  // namespace host

static void __syncthreads() { host::wait(host::AT_BLOCK); }
static void __syncwarp() { host::exchange(0); }
template <class T> static T __shfl_sync(unsigned, T v, int lane) { return host::from_bits<T>(host::exchange(host::bits(v))[lane]); }
template <class T> static T __shfl_xor_sync(unsigned, T v, int mask) {
    return host::from_bits<T>(host::exchange(host::bits(v))[(host::current % 32) ^ mask]);
}
static unsigned __ballot_sync(unsigned, bool v) {
    const uint64_t* all = host::exchange(v);
    unsigned mask = 0;
    for (int l = 0; l < 32; ++l) mask |= unsigned(all[l] != 0) << l;
    return mask;
}
static unsigned __match_any_sync(unsigned, unsigned long long v) {
    const uint64_t* all = host::exchange(v);
    unsigned mask = 0;
    for (int l = 0; l < 32; ++l) mask |= unsigned(all[l] == v) << l;
    return mask;
}
static int __popc(unsigned v) { return __builtin_popcount(v); }
static int __ffs(int v) { return __builtin_ffs(v); }
template <class T> static T __ldg(const T* p) { return *p; }
template <class T> static T atomicAdd(T* p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
template <class T> static T min(T a, T b) { return b < a ? b : a; }
template <class T> static T max(T a, T b) { return a < b ? b : a; }

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(n)
#define GI_SHARED float4* shared = (float4*)host::shared()

#include "kernels.cu"

static Job the_job;
static Launch the_launch;

#define KERNELS(X) \
    X(gi_raw) X(gi_draw) X(gi_march) X(gi_list) X(gi_colours) X(gi_march_back) X(gi_decode_back) X(gi_query) X(gi_query_back) X(gi_grid)
#define BODY(name) static void body_##name() { name(the_job, the_launch); }
KERNELS(BODY)

// 0; 1: no such kernel; 2: shared memory was overrun.
extern "C" int host_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared_bytes, void** parameters) {
    host::body = nullptr;
#define FIND(kernel) if (!std::strcmp(name, #kernel)) host::body = body_##kernel;
    KERNELS(FIND)
    if (!host::body) return 1;
    std::memcpy(&the_job, parameters[0], sizeof the_job);
    std::memcpy(&the_launch, parameters[1], sizeof the_launch);
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const unsigned floats = shared_bytes / 4;
    host::room.assign(floats + 1024, 0.f);
    if (host::fibers.size() < blockDim.x) {
        host::fibers.resize(blockDim.x);
        for (auto& f : host::fibers) f.stack.resize(1 << 17);
    }
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) {
                for (unsigned i = 0; i < floats; ++i) host::room[i] = std::numeric_limits<float>::quiet_NaN();
                for (unsigned i = floats; i < floats + 1024; ++i) host::room[i] = 12345.f;
                host::run_block();
                for (unsigned i = floats; i < floats + 1024; ++i)
                    if (host::room[i] != 12345.f) return 2;
            }
    return 0;
}
