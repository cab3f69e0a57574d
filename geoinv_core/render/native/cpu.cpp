// Entry points of the CPU library: C ABI, no torch, no threads of its own (the caller runs ranges on a pool).
//
// Built three times: with GI_AVX512 (float, sixteen lanes), with GI_AVX2 (float, eight lanes), and plain (float, and
// double for gradient checks).
#include <mutex>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define GI_X86 1
#endif

#include "cross.h"
#include "grid.h"
#include "march.h"
#include "march_back.h"
#include "query.h"
#include "warp.h"

#ifdef _WIN32
#define GI_API extern "C" __declspec(dllexport)
#else
#define GI_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

// Transmittances sink into denormals, which are a hundred times slower than zero and worth as much.
struct FlushDenormals {
#ifdef GI_X86
    unsigned saved = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(saved | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

std::mutex delivery;

template <class V> int render(const gi::Job* job, int64_t first, int64_t last) {
    FlushDenormals flush;
    gi::Marcher<V> marcher(*job, false);
    for (int64_t t = first; t < last; ++t) marcher.render(t);
    return 0;
}

template <class V> int render_back(const gi::Job* job, int64_t first, int64_t last, void* g_planes) {
    FlushDenormals flush;
    gi::BackMarcher<V> marcher(*job);
    for (int64_t t = first; t < last; ++t) marcher.back(t, (typename V::Scalar*)g_planes);
    std::lock_guard<std::mutex> lock(delivery);
    marcher.deliver();
    return 0;
}

template <class V> int query(const gi::Job* job, int64_t first, int64_t last) {
    FlushDenormals flush;
    gi::Points<V> points(*job, false);
    for (int64_t t = first; t < last; ++t) points.look(t);
    return 0;
}

template <class V> int query_back(const gi::Job* job, int64_t first, int64_t last, void* g_planes) {
    FlushDenormals flush;
    gi::Points<V> points(*job, true);
    for (int64_t t = first; t < last; ++t) points.back(t, (typename V::Scalar*)g_planes);
    std::lock_guard<std::mutex> lock(delivery);
    points.decoder.deliver();
    return 0;
}

template <class V> int warp(const gi::Warp* job, int64_t first, int64_t last) {
    gi::Warper<V> warper(*job, false);
    for (int64_t t = first; t < last; ++t) warper.move(t);
    return 0;
}

template <class V> int warp_back(const gi::Warp* job, int64_t first, int64_t last) {
    gi::Warper<V> warper(*job, true);
    for (int64_t t = first; t < last; ++t) warper.back(t);
    return 0;
}

template <class V> int cross(const gi::Cross* job) {
    gi::Crosser<typename V::Scalar> crosser(*job);
    for (int64_t e = 0; e < job->edges; ++e) crosser.look(e);
    return 0;
}

template <class V> int grid(const gi::Job* job, int64_t first, int64_t last) {
    FlushDenormals flush;
    gi::Lattice<V>(*job).fill(first, last);
    return 0;
}

// No exception may cross the C border: 1 means out of memory.
template <class F> int guarded(F&& call) {
    try {
        return call();
    } catch (...) {
        return 1;
    }
}

}  // namespace

#define GI_ENTRIES(suffix, V)                                                                             \
    GI_API int64_t gi_tiles_##suffix(const gi::Job* job) { return gi::Tile<V>::count(*job); }              \
    GI_API int64_t gi_slabs_##suffix(const gi::Job* job) { return gi::Points<V>::count(*job); }            \
    GI_API int gi_render_##suffix(const gi::Job* job, int64_t a, int64_t b) {                              \
        return guarded([&] { return render<V>(job, a, b); });                                              \
    }                                                                                                     \
    GI_API int gi_render_back_##suffix(const gi::Job* job, int64_t a, int64_t b, void* g) {                \
        return guarded([&] { return render_back<V>(job, a, b, g); });                                      \
    }                                                                                                     \
    GI_API int gi_query_##suffix(const gi::Job* job, int64_t a, int64_t b) {                               \
        return guarded([&] { return query<V>(job, a, b); });                                               \
    }                                                                                                     \
    GI_API int gi_query_back_##suffix(const gi::Job* job, int64_t a, int64_t b, void* g) {                 \
        return guarded([&] { return query_back<V>(job, a, b, g); });                                       \
    }                                                                                                     \
    GI_API int gi_grid_##suffix(const gi::Job* job, int64_t a, int64_t b) {                                \
        return guarded([&] { return grid<V>(job, a, b); });                                                \
    }                                                                                                     \
    GI_API int gi_warp_##suffix(const gi::Warp* job, int64_t a, int64_t b) {                               \
        return guarded([&] { return warp<V>(job, a, b); });                                                \
    }                                                                                                     \
    GI_API int gi_warp_back_##suffix(const gi::Warp* job, int64_t a, int64_t b) {                          \
        return guarded([&] { return warp_back<V>(job, a, b); });                                           \
    }                                                                                                     \
    GI_API int gi_cross_##suffix(const gi::Cross* job) {                                                   \
        return guarded([&] { return cross<V>(job); });                                                     \
    }                                                                                                     \
    GI_API int gi_pack_##suffix(const void* from, void* to, int64_t a, int64_t b, int channels, int padded, \
                                int64_t texels) {                                                         \
        return gi::pack<V>(from, to, a, b, channels, padded, texels);                                      \
    }                                                                                                     \
    GI_API int gi_unpack_##suffix(const void* from, void* to, int64_t a, int64_t b, int channels,          \
                                  int padded, int64_t texels) {                                           \
        return gi::unpack<V>(from, to, a, b, channels, padded, texels);                                    \
    }

#if defined(GI_AVX512)
GI_ENTRIES(avx512_f32, gi::Sixteen)
#elif defined(GI_AVX2)
GI_ENTRIES(avx2_f32, gi::Eight)
#else
GI_ENTRIES(plain_f32, gi::One<float>)
GI_ENTRIES(plain_f64, gi::One<double>)

// Checked by the caller before it trusts its own picture of the structure.
GI_API int64_t gi_job_size() { return sizeof(gi::Job); }

// 0, 8 (AVX2 and FMA) or 16 (AVX-512F as well): lanes that the processor and its system can do.
GI_API int gi_lanes() {
#if defined(GI_X86) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return 0;
    return __builtin_cpu_supports("avx512f") ? 16 : 8;
#elif defined(_M_X64)
    int r[4];
    __cpuid(r, 1);
    bool fma = r[2] >> 12 & 1, xsave = r[2] >> 27 & 1;
    __cpuidex(r, 7, 0);
    if (!(fma && xsave && (r[1] >> 5 & 1) && (_xgetbv(0) & 6) == 6)) return 0;
    return (r[1] >> 16 & 1) && (_xgetbv(0) & 0xe6) == 0xe6 ? 16 : 8;
#else
    return 0;
#endif
}
#endif
