// Vectors of points. A kernel is written once over a lane type V: eight floats (AVX2), or a plain float or double.
#pragma once

#include <cstdint>
#include <cstring>

#include "field.h"

#ifdef GI_AVX2
#include <immintrin.h>
#endif

namespace gi {

// One lane: the fallback, and double for gradient checks.
template <class S> struct One {
    using Scalar = S;
    using Vector = S;
    using Index = int32_t;
    static constexpr int width = 1;
    static S load(const S* p) { return *p; }
    static void store(S* p, S v) { *p = v; }
    static S set(S v) { return v; }
    static S broadcast(const S* p) { return *p; }
    static S sum(S v) { return v; }
    static bool any(bool m) { return m; }
    static int32_t to_index(S v) { return int32_t(v); }
    static int32_t multiply_add(int32_t a, int32_t b, int32_t c) { return a * b + c; }
    static int32_t set_index(int32_t v) { return v; }
    static void store_index(int32_t* p, int32_t v) { *p = v; }
    // a square block: rows of `width` values, `from` apart, become columns, `to` apart
    static void transpose(const S* in, int, S* out, int) { *out = *in; }
};

#ifdef GI_AVX2

struct F8 {
    __m256 v;
    F8() = default;
    F8(__m256 x) : v(x) {}
    explicit F8(double x) : v(_mm256_set1_ps(float(x))) {}
};
struct M8 { __m256 v; };

inline F8 operator+(F8 a, F8 b) { return _mm256_add_ps(a.v, b.v); }
inline F8 operator-(F8 a, F8 b) { return _mm256_sub_ps(a.v, b.v); }
inline F8 operator*(F8 a, F8 b) { return _mm256_mul_ps(a.v, b.v); }
inline F8 operator/(F8 a, F8 b) { return _mm256_div_ps(a.v, b.v); }
inline M8 operator>(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline M8 operator>=(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
inline M8 operator<=(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
inline M8 operator==(F8 a, F8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline M8 operator&(M8 a, M8 b) { return {_mm256_and_ps(a.v, b.v)}; }
inline F8 max_(F8 a, F8 b) { return _mm256_max_ps(a.v, b.v); }
inline F8 min_(F8 a, F8 b) { return _mm256_min_ps(a.v, b.v); }
inline F8 abs_(F8 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v); }
inline F8 floor_(F8 a) { return _mm256_floor_ps(a.v); }
inline F8 sqrt_(F8 a) { return _mm256_sqrt_ps(a.v); }
inline F8 select_(M8 m, F8 a, F8 b) { return _mm256_blendv_ps(b.v, a.v, m.v); }
inline F8 fused_(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F8 fma_(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }

// exp(x) to 1e-7 of its value: x = n log 2 + r, a fitted polynomial on |r| <= log(2) / 2, n into the exponent.
// NaN stays NaN (min and max hand on their second operand).
inline F8 exp_(F8 x) {
    x = max_(F8(-87.3), min_(F8(88.3), x));
    F8 n = _mm256_round_ps((x * F8(1.4426950408889634)).v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    F8 r = fma_(n, F8(-0.693359375), x);
    r = fma_(n, F8(2.12194440e-4), r);
    F8 q = fma_(F8(0.008374639819068672), r, F8(0.0418982690923411));
    q = fma_(q, r, F8(0.1666645725293859));
    q = fma_(q, r, F8(0.4999914708697803));
    q = fma_(q, r * r, r) + F8(1.0);
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q.v), e));
}

// log(1 + exp(x)) = max(x, 0) + log(1 + y), y = exp(-|x|) in 0..1; fitted to 4e-8.
inline F8 softplus_(F8 x) {
    F8 y = exp_(F8(_mm256_or_ps(_mm256_set1_ps(-0.f), x.v)));
    F8 p = fma_(F8(-0.00679469113719578), y, F8(0.037482292951937314));
    p = fma_(p, y, F8(-0.09765086785956428));
    p = fma_(p, y, F8(0.16967584496929217));
    p = fma_(p, y, F8(-0.2417137702174268));
    p = fma_(p, y, F8(0.3320579311106748));
    p = fma_(p, y, F8(-0.49990756930850155));
    p = fma_(p, y, F8(0.9999979701315));
    return fma_(p, y, max_(F8(_mm256_setzero_ps()), x));
}

struct Eight {
    using Scalar = float;
    using Vector = F8;
    using Index = __m256i;
    static constexpr int width = 8;
    static F8 load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F8 v) { _mm256_storeu_ps(p, v.v); }
    static F8 set(float v) { return _mm256_set1_ps(v); }
    static F8 broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static float sum(F8 a) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
    }
    static bool any(M8 m) { return _mm256_movemask_ps(m.v) != 0; }
    static __m256i to_index(F8 v) { return _mm256_cvttps_epi32(v.v); }
    static __m256i multiply_add(__m256i a, int32_t b, __m256i c) {
        return _mm256_add_epi32(_mm256_mullo_epi32(a, _mm256_set1_epi32(b)), c);
    }
    static __m256i set_index(int32_t v) { return _mm256_set1_epi32(v); }
    static void store_index(int32_t* p, __m256i v) { _mm256_storeu_si256((__m256i*)p, v); }
    static void transpose(const float* in, int from, float* out, int to) {
        __m256 a[8], b[8];
        for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(in + i * from);
        for (int i = 0; i < 8; i += 2) {
            b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
            b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
            a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
            a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
            a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_ps(out + i * to, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
            _mm256_storeu_ps(out + (i + 4) * to, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
        }
    }
};

#endif

}  // namespace gi
