// Vectors of points. A kernel is written once over a lane type V: eight floats (AVX2), or a plain float or double.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "field.h"

#ifdef GI_AVX2
#include <immintrin.h>
#endif

// Before a loop over registers. GCC unrolls short loops only after it has decided what lives in registers.
#if defined(__clang__)
#define GI_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define GI_UNROLL _Pragma("GCC unroll 16")
#else
#define GI_UNROLL
#endif

namespace gi {

template <int N> struct Int { static constexpr int value = N; };

// Of hidden units and colours, whose absolute error counts; sixteen lanes have quicker ones. A density's smallest values
// count too: the depth of an almost empty ray is a ratio of them.
template <class V> struct Softplus {
    V operator()(V x) const { return softplus_(x); }
};
template <class V> struct Sigmoid {
    V operator()(V x) const { return sigmoid(x); }
};

// Rows of a product in blocks that fill the registers: 6 x 2 vectors (8 x 2 of 32), and what divides the rest well.
template <class F> inline void in_blocks(int rows, F&& call) {
    int j = 0;
#ifdef GI_AVX512
    for (; rows - j >= 8; j += 8) call(Int<8>(), j);
#endif
    for (; rows - j >= 6 && rows - j != 8; j += 6) call(Int<6>(), j);
    for (; rows - j >= 4; j += 4) call(Int<4>(), j);
    for (; rows - j >= 2; j += 2) call(Int<2>(), j);
    if (rows - j) call(Int<1>(), j);
}

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
    static void prefetch(const S*) {}
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
inline F8 reciprocal_(F8 a) { return _mm256_div_ps(_mm256_set1_ps(1.f), a.v); }
inline F8 select_(M8 m, F8 a, F8 b) { return _mm256_blendv_ps(b.v, a.v, m.v); }
inline F8 fused_(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F8 fma_(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }

// 2^n times q, for whole n
inline F8 scale_(F8 q, F8 n) {
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q.v), e));
}
inline F8 round_(F8 x) { return _mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#ifdef GI_AVX512

struct F16 {
    __m512 v;
    F16() = default;
    F16(__m512 x) : v(x) {}
    explicit F16(double x) : v(_mm512_set1_ps(float(x))) {}
};
struct M16 { __mmask16 m; };

inline F16 operator+(F16 a, F16 b) { return _mm512_add_ps(a.v, b.v); }
inline F16 operator-(F16 a, F16 b) { return _mm512_sub_ps(a.v, b.v); }
inline F16 operator*(F16 a, F16 b) { return _mm512_mul_ps(a.v, b.v); }
inline F16 operator/(F16 a, F16 b) { return _mm512_div_ps(a.v, b.v); }
inline M16 operator>(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline M16 operator>=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline M16 operator<=(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline M16 operator==(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M16 operator&(M16 a, M16 b) { return {__mmask16(a.m & b.m)}; }
inline F16 max_(F16 a, F16 b) { return _mm512_max_ps(a.v, b.v); }
inline F16 min_(F16 a, F16 b) { return _mm512_min_ps(a.v, b.v); }
inline F16 abs_(F16 a) { return _mm512_abs_ps(a.v); }
inline F16 floor_(F16 a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline F16 sqrt_(F16 a) { return _mm512_sqrt_ps(a.v); }
// an estimate of 14 bits and a step of Newton's: to 1e-7, in a third of a division
inline F16 reciprocal_(F16 a) {
    const __m512 r = _mm512_rcp14_ps(a.v);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(2.f)));
}
inline F16 select_(M16 m, F16 a, F16 b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
inline F16 fused_(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F16 fma_(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F16 scale_(F16 q, F16 n) {
    __m512i e = _mm512_slli_epi32(_mm512_cvtps_epi32(n.v), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(q.v), e));
}
inline F16 round_(F16 x) { return _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#endif

// exp(x) to 1e-7 of its value: x = n log 2 + r, a fitted polynomial on |r| <= log(2) / 2, n into the exponent.
// NaN stays NaN (min and max hand on their second operand).
template <class V> inline V exp_of(V x) {
    x = max_(V(-87.3), min_(V(88.3), x));
    V n = round_(x * V(1.4426950408889634));
    V r = fma_(n, V(-0.693359375), x);
    r = fma_(n, V(2.12194440e-4), r);
    V q = fma_(V(0.008374639819068672), r, V(0.0418982690923411));
    q = fma_(q, r, V(0.1666645725293859));
    q = fma_(q, r, V(0.4999914708697803));
    q = fma_(q, r * r, r) + V(1.0);
    return scale_(q, n);
}

// log(1 + exp(x)) = max(x, 0) + log(1 + y), y = exp(-|x|) in 0..1; fitted to 4e-8, and to 2e-6 of a small value.
template <class V> inline V softplus_of(V x) {
    V y = exp_of(V(0.0) - abs_(x));
    V p = fma_(V(-0.00679469113719578), y, V(0.037482292951937314));
    p = fma_(p, y, V(-0.09765086785956428));
    p = fma_(p, y, V(0.16967584496929217));
    p = fma_(p, y, V(-0.2417137702174268));
    p = fma_(p, y, V(0.3320579311106748));
    p = fma_(p, y, V(-0.49990756930850155));
    p = fma_(p, y, V(0.9999979701315));
    return fma_(p, y, max_(V(0.0), x));
}

inline F8 exp_(F8 x) { return exp_of(x); }
inline F8 softplus_(F8 x) { return softplus_of(x); }
#ifdef GI_AVX512
inline F16 exp_(F16 x) { return exp_of(x); }
inline F16 softplus_(F16 x) { return softplus_of(x); }

// A smooth function of y >= 0 that fades as exp(-y), by 32 cubics: 1 + y in 1..2, 2..4, 4..8 and 8..16 has eight each, so
// that its float holds the number of the cubic and the place in it side by side. With 32 numbers in two registers a
// lookup is one instruction. To 1e-6; from y = 15 on it stays what it is there.
struct Curve {
    alignas(64) float part[4][32];
    template <class F> explicit Curve(F&& f) {
        for (int i = 0; i < 32; ++i) {
            const int octave = (i / 8 + 1) % 4;  // of an exponent's last bits; that of 1.0 is 127
            double at[4], value[4], sum[4] = {0, 0, 0, 0};
            for (int k = 0; k < 4; ++k) {
                at[k] = 1.0625 + 0.0625 * std::cos((2 * k + 1) * 0.39269908169872414);
                value[k] = f(std::ldexp(at[k] + (i % 8) / 8.0, octave) - 1);
            }
            for (int d = 1; d < 4; ++d)  // Newton's divided differences, then multiplied out
                for (int k = 3; k >= d; --k) value[k] = (value[k] - value[k - 1]) / (at[k] - at[k - d]);
            for (int k = 3; k >= 0; --k) {
                for (int d = 3; d > 0; --d) sum[d] = sum[d - 1] - at[k] * sum[d];
                sum[0] = value[k] - at[k] * sum[0];
            }
            for (int d = 0; d < 4; ++d) part[d][i] = float(sum[d]);
        }
    }
};
static const Curve softplus_tail([](double y) { return std::log1p(std::exp(-y)); });
static const Curve sigmoid_tail([](double y) { return 1 / (1 + std::exp(y)); });

// A curve in registers, where stores cannot touch it.
struct Held {
    __m512 low[4], high[4];
    explicit Held(const Curve& curve) {
        GI_UNROLL for (int d = 0; d < 4; ++d) {
            low[d] = _mm512_load_ps(curve.part[d]);
            high[d] = _mm512_load_ps(curve.part[d] + 16);
        }
    }
    // Of |x|; of NaN some number.
    F16 operator()(F16 x) const {
        const __m512 t = _mm512_min_ps(_mm512_set1_ps(15.99f), _mm512_add_ps(_mm512_set1_ps(1.f), _mm512_abs_ps(x.v)));
        const __m512i bits = _mm512_castps_si512(t), number = _mm512_srli_epi32(bits, 20);
        // what follows the first three digits behind the point: 1 .. 1.125
        const __m512 place = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
            bits, _mm512_set1_epi32(0x000fffff), _mm512_set1_epi32(0x3f800000), 0xea));
        __m512 q = _mm512_permutex2var_ps(low[3], number, high[3]);
        GI_UNROLL for (int d = 2; d >= 0; --d)
            q = _mm512_fmadd_ps(q, place, _mm512_permutex2var_ps(low[d], number, high[d]));
        return q;
    }
};
template <> struct Softplus<F16> {
    const Held tail{softplus_tail};
    F16 operator()(F16 x) const { return tail(x) + max_(F16(0.0), x); }  // the maximum of 0 and NaN is NaN
};
template <> struct Sigmoid<F16> {
    const Held tail{sigmoid_tail};
    F16 operator()(F16 x) const {
        const F16 small = tail(x);
        return select_(x == x, select_(x > F16(0.0), F16(1.0) - small, small), x);
    }
};
#endif

struct Eight {
    using Scalar = float;
    using Vector = F8;
    using Index = __m256i;
    static constexpr int width = 8;
    static F8 load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F8 v) { _mm256_storeu_ps(p, v.v); }
    static F8 set(float v) { return _mm256_set1_ps(v); }
    static F8 broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    // into the second cache: a slab's texels do not fit the first beside the decoder
    static void prefetch(const float* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }
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

#ifdef GI_AVX512

struct Sixteen {
    using Scalar = float;
    using Vector = F16;
    using Index = __m512i;
    static constexpr int width = 16;
    static F16 load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F16 v) { _mm512_storeu_ps(p, v.v); }
    static F16 set(float v) { return _mm512_set1_ps(v); }
    static F16 broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static void prefetch(const float* p) { Eight::prefetch(p); }
    static float sum(F16 a) { return _mm512_reduce_add_ps(a.v); }
    static bool any(M16 m) { return m.m != 0; }
    static __m512i to_index(F16 v) { return _mm512_cvttps_epi32(v.v); }
    static __m512i multiply_add(__m512i a, int32_t b, __m512i c) {
        return _mm512_add_epi32(_mm512_mullo_epi32(a, _mm512_set1_epi32(b)), c);
    }
    static __m512i set_index(int32_t v) { return _mm512_set1_epi32(v); }
    static void store_index(int32_t* p, __m512i v) { _mm512_storeu_si512(p, v); }
    static void transpose(const float* in, int from, float* out, int to) {
        for (int i = 0; i < 16; i += 8)
            for (int j = 0; j < 16; j += 8) Eight::transpose(in + i * from + j, from, out + j * to + i, to);
    }
};

#endif
#endif

}  // namespace gi
