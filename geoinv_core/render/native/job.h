// What the Python side hands over: plain numbers and addresses. Mirrored field by field in library.py.
#pragma once

#ifdef __CUDACC_RTC__  // which has no standard headers
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
#else
#include <cstdint>
#endif

namespace gi {

struct Job {
    // field; every array holds the scalar of the entry point that is called
    int32_t batch, planes, channels, channels_padded, depth, height, width;  // depth 0: planes, not a tri-grid
    int32_t hidden, features, density, activation, crop;
    double crop_limit, distance_scale, distance_radius;
    int64_t entry_stride, plane_stride, texel_stride;  // of plane_data and g_planes, in numbers
    const void *plane_data;                            // [B, P, (D H) W, channels_padded] by these strides
    const void *maps;        // [P, 3, 3]
    const void *w1, *b1, *w2, *b2, *beta;
    // rays [B, R, ...], or points
    int64_t rays;
    int32_t image_width;  // > 0: rays are rows of that width, and tiles are square
    int32_t coarse, fine, disparity;
    double jitter, skip;
    const void *origins, *directions, *near, *far, *u_coarse, *u_fine;  // u_*: null for jitter and mid
    void *total, *depth_sum, *opacity, *range;  // [B, R, F], [B, R], [B, R], [B, R, 2]
    void *weights, *depths;                     // null, or [B, R, n - 1], [B, R, n]
    // query: points in `origins`; results, of which features may be null
    void *raw, *feature_values;  // [B, N], [B, N, F]
    // gradients: of the results, and, where not null, of the inputs (added to what is there)
    const void *g_total, *g_depth_sum, *g_opacity, *g_raw, *g_features;
    void *g_planes;  // laid out as plane_data
    void *g_w1, *g_b1, *g_w2, *g_b2, *g_beta;
    void *g_origins, *g_directions;  // [B, R, 3]; written, not added
    // lattice
    int32_t resolution, first_row, row_count;  // x in first_row .. + row_count is filled; XY and XZ begin there
    const void *axis;             // [resolution] coordinates
    const void *table_xy, *table_xz, *table_yz;
    const void *mask;             // null, or uint8 [resolution, resolution, ceil(resolution / 8)]: blocks to fill
    void *grid;                   // [resolution, resolution, resolution]
};

}  // namespace gi
