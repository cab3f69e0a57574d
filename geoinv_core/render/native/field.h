// The maths of one sample of a field, once, for every compiler and every scalar.
//
// S is float or double, and on a CPU also a vector of floats (lanes.h), whose lanes are then different rays: nothing
// here branches on a value, it selects. exp_, softplus_ and friends are found for each S beside its type.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GI_HD __host__ __device__ __forceinline__
#else
#include <cmath>
#define GI_HD inline
#endif

namespace gi {

enum Density { DENSITY_SOFTPLUS = 0, DENSITY_SDF = 1, DENSITY_RAW = 2 };
enum Activation { ACTIVATION_SIGMOID = 0, ACTIVATION_LRELU = 1, ACTIVATION_NONE = 2 };

// ---- scalars ---------------------------------------------------------------------------------------

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
GI_HD float exp_(float x) { return __expf(x); }
#else
GI_HD float exp_(float x) { return expf(x); }
#endif
GI_HD double exp_(double x) { return exp(x); }
GI_HD float max_(float a, float b) { return a > b ? a : b; }
GI_HD double max_(double a, double b) { return a > b ? a : b; }
GI_HD float min_(float a, float b) { return a < b ? a : b; }
GI_HD double min_(double a, double b) { return a < b ? a : b; }
GI_HD float abs_(float x) { return fabsf(x); }
GI_HD double abs_(double x) { return fabs(x); }
GI_HD float floor_(float x) { return floorf(x); }
GI_HD double floor_(double x) { return floor(x); }
GI_HD float sqrt_(float x) { return sqrtf(x); }
GI_HD double sqrt_(double x) { return sqrt(x); }
GI_HD float reciprocal_(float x) { return 1.f / x; }
GI_HD double reciprocal_(double x) { return 1. / x; }
GI_HD float select_(bool c, float a, float b) { return c ? a : b; }
GI_HD double select_(bool c, double a, double b) { return c ? a : b; }
// one rounding, always
GI_HD float fused_(float a, float b, float c) { return fmaf(a, b, c); }
GI_HD double fused_(double a, double b, double c) { return fma(a, b, c); }
// one rounding where that is not slower
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__) || defined(__CUDACC_RTC__)
GI_HD float fma_(float a, float b, float c) { return fmaf(a, b, c); }
GI_HD double fma_(double a, double b, double c) { return fma(a, b, c); }
#else
GI_HD float fma_(float a, float b, float c) { return a * b + c; }
GI_HD double fma_(double a, double b, double c) { return a * b + c; }
#endif
// log(1 + exp(x)) without overflow
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
GI_HD float softplus_(float x) { return (x > 0 ? x : 0.f) + __logf(1.f + __expf(-fabsf(x))); }  // to 4e-7
#else
GI_HD float softplus_(float x) { return (x > 0 ? x : 0.f) + log1pf(expf(-fabsf(x))); }
#endif
GI_HD double softplus_(double x) { return (x > 0 ? x : 0.) + log1p(exp(-fabs(x))); }

// ---- decoder ---------------------------------------------------------------------------------------

template <class S> GI_HD S sigmoid(S x) { return reciprocal_(S(1.) + exp_(S(0.) - x)); }

// d softplus(x) / dx from h = softplus(x) alone: sigmoid(x) = 1 - exp(-h)
template <class S> GI_HD S softplus_slope(S h) { return S(1.) - exp_(S(0.) - h); }

template <class S> GI_HD S widened(S x) { return x * S(1.002) - S(0.001); }

template <class S> GI_HD S activate(int kind, S x) {
    if (kind == ACTIVATION_SIGMOID) return widened(sigmoid(x));
    if (kind == ACTIVATION_LRELU) return select_(x > S(0.), x, x * S(0.2)) * S(1.4142135623730951);
    return x;
}

// d activate(x) / dx from c = activate(x)
template <class S> GI_HD S activate_slope(int kind, S c) {
    if (kind == ACTIVATION_SIGMOID) {
        S s = (c + S(0.001)) * S(1. / 1.002);
        return S(1.002) * s * (S(1.) - s);
    }
    if (kind == ACTIVATION_LRELU) return select_(c > S(0.), S(1.4142135623730951), S(0.28284271247461901));
    return S(1.);
}

// ---- density ---------------------------------------------------------------------------------------

template <class S> GI_HD S density(int kind, S raw, S beta) {
    if (kind == DENSITY_SOFTPLUS) return softplus_(raw - S(1.));
    if (kind == DENSITY_SDF) return sigmoid((S(0.) - raw) / beta) / beta;
    return max_(raw, S(0.));
}

// Gradient of the density: by raw (returned) and by beta (added to d_beta), times g.
template <class S> GI_HD S density_slope(int kind, S raw, S beta, S sigma, S g, S& d_beta) {
    if (kind == DENSITY_SOFTPLUS) return g * softplus_slope(sigma);
    if (kind == DENSITY_SDF) {
        S s = sigma * beta;  // the sigmoid
        S ds = s * (S(1.) - s) / beta;
        d_beta = d_beta + g * (ds * raw / (beta * beta) - sigma / beta);
        return g * (S(0.) - ds / beta);
    }
    return select_(raw > S(0.), g, S(0.));
}

// ---- marching --------------------------------------------------------------------------------------

// Opacity of an interval whose mid-point density is sigma.
template <class S> GI_HD S interval_alpha(S sigma, S step) { return S(1.) - exp_((S(0.) - sigma) * step); }

// Transmittance behind an interval; the constant keeps it from reaching zero, as EG3D does.
template <class S> GI_HD S pass_on(S through, S alpha) { return through * (S(1.) - alpha + S(1e-10)); }

// One step of the march backwards. weight = alpha * through; g is dL/dweight, behind is dL/d(transmittance behind
// this interval) and becomes dL/d(transmittance in front of it). Returns dL/dsigma.
template <class S> GI_HD S march_back(S alpha, S through, S step, S g, S& behind) {
    S d_alpha = through * (g - behind);
    behind = g * alpha + behind * (S(1.) - alpha + S(1e-10));
    return d_alpha * step * (S(1.) - alpha);
}

// Depth of coarse sample i of `count`, jitter in steps. Even depths are counted from the nearer end with a single
// rounding, as torch.linspace does.
template <class S> GI_HD S coarse_depth(S near, S far, int i, int count, S jitter, bool disparity) {
    if (disparity) {
        S t = S(double(i)) / S(double(count - 1)) + jitter / S(double(count - 1));
        return S(1.) / ((S(1.) - t) / near + t / far);
    }
    S step = (far - near) / S(double(count - 1));
    S even = i < count / 2 ? fused_(step, S(double(i)), near) : fused_(S(0.) - step, S(double(count - 1 - i)), far);
    return even + jitter * step;
}

// Importance weight of a coarse interval from its own weight and its neighbours' (EG3D: max-pool, mean-pool, + .01).
template <class S> GI_HD S smooth_weight(S before, S own, S after) {
    return (max_(before, own) + max_(own, after)) * S(0.5) + S(0.01);
}

// ---- lookup ----------------------------------------------------------------------------------------

// The two texels around a position in -1..1 (align_corners False), clamped, with weight 0 outside.
// NaN and inf come out as texel 0: never an address outside.
template <class S> struct Taps { S low, high, weight_low, weight_high; };

template <class S> GI_HD Taps<S> taps(S position, S size) {
    S x = (position + S(1.)) * (size * S(0.5)) - S(0.5);  // rounded as PyTorch's grid_sample rounds
    S bounded = max_(min_(x, size + S(1.)), S(-2.));
    bounded = select_(x == x, bounded, S(-2.));
    S low = floor_(bounded), fraction = bounded - low, last = size - S(1.);
    S high = low + S(1.);
    Taps<S> t;
    t.weight_low = select_((low >= S(0.)) & (low <= last), S(1.) - fraction, S(0.));
    t.weight_high = select_((high >= S(0.)) & (high <= last), fraction, S(0.));
    t.low = max_(min_(low, last), S(0.));
    t.high = max_(min_(high, last), S(0.));
    return t;
}

}  // namespace gi
