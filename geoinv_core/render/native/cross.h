// Where a surface passes through itself: edges against triangles, met in a tree of boxes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace gi {

// Matches mesh/crossing.py.
struct Cross {
    int64_t triangles, edges;
    int64_t sorted;          // whether order is known, else it is found
    double flat;             // least sine, about, of the angle between an edge and a triangle that it passes through
    const void* points;      // [V, 3]
    const int64_t* corners;  // [triangles, 3]
    const int64_t* ends;     // [edges, 2]
    const int64_t* owners;   // [edges, 2], two triangles of each edge
    const uint8_t* among;    // [triangles]; pairs without any of these are left out
    int64_t* order;          // [triangles], as the tree holds them: any is right, one for nearby points quick
    uint8_t* found;          // [triangles], zeros to begin with
};

template <class S> class Crosser {
    static constexpr int64_t LEAF = 4;

    struct Box {
        S low[3], high[3];

        Box() {
            std::fill_n(low, 3, std::numeric_limits<S>::infinity());
            std::fill_n(high, 3, -std::numeric_limits<S>::infinity());
        }
        void take(const S* p) {
            for (int k = 0; k < 3; ++k) {
                low[k] = std::min(low[k], p[k]);
                high[k] = std::max(high[k], p[k]);
            }
        }
        bool meets(const Box& other) const {
            for (int k = 0; k < 3; ++k)
                if (low[k] > other.high[k] || other.low[k] > high[k]) return false;
            return true;
        }
        S middle(int axis) const { return low[axis] + high[axis]; }  // twice
    };

    // A leaf has no right child; the left one stands behind its parent.
    struct Node {
        Box box;
        int64_t first, last, right = 0;
        bool among = false;

        void take(const Node& child) {
            box.take(child.box.low);
            box.take(child.box.high);
            among |= child.among;
        }
    };

    const Cross& job;
    const S* const points;
    int64_t* const order;
    std::vector<Box> boxes;
    std::vector<Node> nodes;

    // Halves of halves, along the axis on which the middles of boxes lie furthest apart.
    void sort(int64_t first, int64_t last) {
        if (last - first <= LEAF) return;
        Box middles;
        for (int64_t i = first; i < last; ++i) {
            const Box& box = boxes[order[i]];
            const S middle[3] = {box.middle(0), box.middle(1), box.middle(2)};
            middles.take(middle);
        }
        int axis = 0;
        for (int k = 1; k < 3; ++k)
            if (middles.high[k] - middles.low[k] > middles.high[axis] - middles.low[axis]) axis = k;
        const int64_t half = (first + last) / 2;
        std::nth_element(order + first, order + half, order + last,
                         [&](int64_t a, int64_t b) { return boxes[a].middle(axis) < boxes[b].middle(axis); });
        sort(first, half);
        sort(half, last);
    }

    int64_t grow(int64_t first, int64_t last) {
        const int64_t at = int64_t(nodes.size());
        nodes.emplace_back();
        Node node;
        node.first = first, node.last = last;
        if (last - first > LEAF) {
            const int64_t half = (first + last) / 2;
            const Node left = nodes[grow(first, half)];
            node.right = grow(half, last);
            node.take(left);
            node.take(nodes[node.right]);
        } else
            for (int64_t i = first; i < last; ++i) {
                node.box.take(boxes[order[i]].low);
                node.box.take(boxes[order[i]].high);
                node.among |= job.among[order[i]] != 0;
            }
        nodes[at] = node;
        return at;
    }

    static void cross(const S* a, const S* b, S* out) {
        out[0] = a[1] * b[2] - a[2] * b[1];
        out[1] = a[2] * b[0] - a[0] * b[2];
        out[2] = a[0] * b[1] - a[1] * b[0];
    }
    static S dot(const S* a, const S* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
    static void apart(const S* a, const S* b, S* out) {
        for (int k = 0; k < 3; ++k) out[k] = a[k] - b[k];
    }

    // Moeller and Trumbore 1997.
    bool passes(const S* start, const S* end, const int64_t* corner) const {
        const S *a = points + 3 * corner[0], *b = points + 3 * corner[1], *c = points + 3 * corner[2];
        S u[3], v[3], way[3], off[3], across[3], turned[3], normal[3];
        apart(b, a, u);
        apart(c, a, v);
        apart(end, start, way);
        apart(start, a, off);
        cross(way, v, across);
        cross(off, u, turned);
        cross(u, v, normal);
        const S det = dot(u, across);
        if (!(std::abs(det) > S(job.flat) * (std::sqrt(dot(way, way)) * std::sqrt(dot(normal, normal))))) return false;
        const S s = dot(off, across) / det, t = dot(way, turned) / det, along = dot(v, turned) / det;
        return s >= 0 && t >= 0 && s + t <= 1 && along >= 0 && along <= 1;
    }

public:
    explicit Crosser(const Cross& job)
        : job(job), points((const S*)job.points), order(job.order), boxes(job.triangles) {
        for (int64_t t = 0; t < job.triangles; ++t)
            for (int k = 0; k < 3; ++k) boxes[t].take(points + 3 * job.corners[3 * t + k]);
        if (!job.sorted) {
            std::iota(order, order + job.triangles, int64_t(0));
            sort(0, job.triangles);
        }
        nodes.reserve(job.triangles);
        if (job.triangles) grow(0, job.triangles);
    }

    void look(int64_t edge) const {
        const int64_t *ends = job.ends + 2 * edge, *owners = job.owners + 2 * edge;
        const S *start = points + 3 * ends[0], *end = points + 3 * ends[1];
        const bool own = job.among[owners[0]] || job.among[owners[1]];
        Box box;
        box.take(start);
        box.take(end);
        int64_t waiting[64];  // halves of halves: never as deep
        int count = 0;
        waiting[count++] = 0;
        while (count) {
            const int64_t at = waiting[--count];
            const Node& node = nodes[at];
            if (!(own || node.among) || !box.meets(node.box)) continue;
            if (node.right) {
                waiting[count++] = node.right;
                waiting[count++] = at + 1;
                continue;
            }
            for (int64_t i = node.first; i < node.last; ++i) {
                const int64_t t = order[i], *corner = job.corners + 3 * t;
                if (!(own || job.among[t]) || !box.meets(boxes[t])) continue;
                if (std::any_of(corner, corner + 3, [&](int64_t v) { return v == ends[0] || v == ends[1]; })) continue;
                if (passes(start, end, corner)) job.found[t] = job.found[owners[0]] = job.found[owners[1]] = 1;
            }
        }
    }
};

}  // namespace gi
