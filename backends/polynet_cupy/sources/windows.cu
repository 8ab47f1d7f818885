// Pooling, and the numbers that the window of a convolution sees. An image of several channels is
// that many planes. The backward pass gathers: each place adds up the windows that see it, always
// in the same order.

// The host's description of a window and of how it goes over planes: the sizes of the planes and of
// the result, and the steps of the window. For a convolution also how many planes an image has
// (`channels`), and the distances in the matrix of what the window sees (`seen`) from one image,
// plane and cell to the next.
struct Window {
    int planes, height, width, out_height, out_width, window_height, window_width, stride_y, stride_x,
        pad_y, pad_x, dilation_y, dilation_x, channels;
    integer image_step, plane_step, cell_step;
};

struct Place { int plane, y, x; };

__device__ Place place(integer i, int height, int width) {
    Divided plane = divided(i, (integer)height * width), row = divided(plane.rest, width);
    return {(int)plane.whole, (int)row.whole, (int)row.rest};
}

// How many places there are in so many planes of this size; so also the index at which a plane
// begins.
__device__ integer places_in(int planes, int height, int width) {
    return (integer)planes * height * width;
}

// Which window has its cell 0 at a place along one axis, then which one has its cell 1 there, and
// so on: it is window number `at`, and there is one only where `rest` is 0. Going from cell to cell
// takes a subtraction, since divisions are slow.
struct Along { int at, rest, stride, step, step_rest, out; };

__device__ Along along(int place, int stride, int pad, int dilation, int out) {
    place += pad;
    if (stride == 1) return {place, 0, 1, dilation, 0, out};
    if (stride == 2) return {place >> 1, place & 1, 2, dilation >> 1, dilation & 1, out};
    return {place / stride, place % stride, stride, dilation / stride, dilation % stride, out};
}

__device__ void to_next_cell(Along& a) {
    a.at -= a.step, a.rest -= a.step_rest;
    if (a.rest < 0) a.rest += a.stride, --a.at;
}

// The number of the window, or -1 if there is none.
__device__ int window_of(const Along& a) {
    return a.rest || a.at < 0 || a.at >= a.out ? -1 : a.at;
}

// The first and the last window that stand over a place along one axis, for windows whose cells are
// neighbours.
struct Span { int first, last; };

__device__ Span windows_over(int place, int window, int stride, int pad, int out) {
    int last = place + pad, first = last - (window - 1);
    first = first > 0 ? (first - 1) / stride + 1 : 0;
    last /= stride;
    return {first, last < out ? last : out - 1};
}

// Calls f(y, x) for each window that has a cell at a place; (y, x) is the position of the window.
template <typename Function>
__device__ void for_windows_over(Place p, const Window& w, Function f) {
    if (w.dilation_y == 1 && w.dilation_x == 1) {
        Span rows = windows_over(p.y, w.window_height, w.stride_y, w.pad_y, w.out_height);
        Span columns = windows_over(p.x, w.window_width, w.stride_x, w.pad_x, w.out_width);
        for (int oy = rows.first; oy <= rows.last; ++oy)
            for (int ox = columns.first; ox <= columns.last; ++ox) f(oy, ox);
        return;
    }
    Along y = along(p.y, w.stride_y, w.pad_y, w.dilation_y, w.out_height);
    for (int ky = 0; ky < w.window_height; ++ky, to_next_cell(y)) {
        Along x = along(p.x, w.stride_x, w.pad_x, w.dilation_x, w.out_width);
        int oy = window_of(y);
        for (int kx = 0; oy >= 0 && kx < w.window_width; ++kx, to_next_cell(x)) {
            int ox = window_of(x);
            if (ox >= 0) f(oy, ox);
        }
    }
}

// The largest number in each window, and its index in the plane. Of several equal numbers the first
// one wins; NaN wins over numbers, and of several NaN the last one. Padding counts as -∞, with
// index -1.
KERNEL max_pool_forward(const real* x, real* y, int* places, Window w) {
    integer i = here();
    if (i >= places_in(w.planes, w.out_height, w.out_width)) return;
    Place o = place(i, w.out_height, w.out_width);
    const real* plane = x + places_in(o.plane, w.height, w.width);
    real largest = 0;
    int found = -1;
    for (int ky = 0; ky < w.window_height; ++ky)
        for (int kx = 0; kx < w.window_width; ++kx) {
            int r = o.y * w.stride_y - w.pad_y + ky * w.dilation_y;
            int c = o.x * w.stride_x - w.pad_x + kx * w.dilation_x;
            bool inside = 0 <= r && r < w.height && 0 <= c && c < w.width;
            real cell = inside ? plane[r * w.width + c] : -INFINITY_;
            if ((!ky && !kx) || cell > largest || cell != cell) {
                largest = cell;
                found = inside ? r * w.width + c : -1;
            }
        }
    y[i] = largest;
    places[i] = found;
}

KERNEL max_pool_backward(const real* g, const int* places, real* out, Window w) {
    integer i = here();
    if (i >= places_in(w.planes, w.height, w.width)) return;
    Place p = place(i, w.height, w.width);
    integer from = places_in(p.plane, w.out_height, w.out_width);
    int mine = p.y * w.width + p.x;
    real sum = 0;
    for_windows_over(p, w, [&](int oy, int ox) {
        integer o = from + oy * w.out_width + ox;
        if (places[o] == mine) sum += g[o];
    });
    out[i] = sum;
}

// How many cells of a window count along one axis: those within the padded plane if `with_pad`,
// else only those within the plane.
__device__ real counted(
    int o, integer n, integer window, integer stride, integer pad, integer with_pad
) {
    integer from = o * stride - pad, end = from + window, low = with_pad ? -pad : 0;
    integer high = with_pad ? n + pad : n;
    return (real)((end < high ? end : high) - (from > low ? from : low));
}

__device__ real cells(Window w, int oy, int ox, integer with_pad) {
    return counted(oy, w.height, w.window_height, w.stride_y, w.pad_y, with_pad) *
           counted(ox, w.width, w.window_width, w.stride_x, w.pad_x, with_pad);
}

// The mean of each window; the zeros of the padding count if `with_pad`.
KERNEL avg_pool_forward(const real* x, real* y, Window w, integer with_pad) {
    integer i = here();
    if (i >= places_in(w.planes, w.out_height, w.out_width)) return;
    Place o = place(i, w.out_height, w.out_width);
    const real* plane = x + places_in(o.plane, w.height, w.width);
    real sum = 0;
    for (int ky = 0; ky < w.window_height; ++ky)
        for (int kx = 0; kx < w.window_width; ++kx) {
            int r = o.y * w.stride_y - w.pad_y + ky;
            int c = o.x * w.stride_x - w.pad_x + kx;
            if (0 <= r && r < w.height && 0 <= c && c < w.width) sum += plane[r * w.width + c];
        }
    y[i] = sum / cells(w, o.y, o.x, with_pad);
}

KERNEL avg_pool_backward(const real* g, real* out, Window w, integer with_pad) {
    integer i = here();
    if (i >= places_in(w.planes, w.height, w.width)) return;
    Place p = place(i, w.height, w.width);
    integer from = places_in(p.plane, w.out_height, w.out_width);
    real sum = 0;
    for_windows_over(p, w, [&](int oy, int ox) {
        sum += g[from + oy * w.out_width + ox] / cells(w, oy, ox, with_pad);
    });
    out[i] = sum;
}

// The index in `seen` of what the window's first cell sees of a plane at the window's first place.
__device__ integer of_plane(int plane, const Window& w) {
    return plane / w.channels * w.image_step + plane % w.channels * w.plane_step;
}

// Calls f<n>(…) for a window of n × n cells of a usual size, and f<0>(…) for any other window.
// Where the compiler knows the length of a loop, all its reads are under way before the first one
// is waited for.
#define BY_WINDOW(f, w, ...)                                                       \
    if (w.window_height == 3 && w.window_width == 3) f<3>(__VA_ARGS__, w);         \
    else if (w.window_height == 5 && w.window_width == 5) f<5>(__VA_ARGS__, w);    \
    else f<0>(__VA_ARGS__, w)

// seen[…, cell, …, place]: what each cell of the window sees, as the rows of a matrix (im2col). A
// thread takes one place of the window, and goes through the window's cells.
template <int cells, typename number>
__device__ void see(const number* __restrict__ x, number* __restrict__ seen, const Window& w) {
    integer i = here();
    if (i >= places_in(w.planes, w.out_height, w.out_width)) return;
    Place o = place(i, w.out_height, w.out_width);
    const number* plane = x + places_in(o.plane, w.height, w.width);
    number* to = seen + of_plane(o.plane, w) + o.y * w.out_width + o.x;
    int rows = cells ? cells : w.window_height, columns = cells ? cells : w.window_width;
#pragma unroll
    for (int ky = 0; ky < rows; ++ky)
#pragma unroll
        for (int kx = 0; kx < columns; ++kx, to += w.cell_step) {
            int r = o.y * w.stride_y - w.pad_y + ky * w.dilation_y;
            int c = o.x * w.stride_x - w.pad_x + kx * w.dilation_x;
            bool inside = 0 <= r && r < w.height && 0 <= c && c < w.width;
            *to = inside ? plane[r * w.width + c] : 0;
        }
}

KERNEL im2col(const real* x, real* seen, Window w) { BY_WINDOW(see, w, x, seen); }

KERNEL im2col_bfloat16(const bfloat16* x, bfloat16* seen, Window w) { BY_WINDOW(see, w, x, seen); }

// The transpose of im2col (col2im): each place of each plane adds up the cells that saw it.
template <int cells>
__device__ void meet(const real* __restrict__ seen, real* __restrict__ out, const Window& w) {
    integer i = here();
    if (i >= places_in(w.planes, w.height, w.width)) return;
    Place p = place(i, w.height, w.width);
    const real* cell = seen + of_plane(p.plane, w);
    int rows = cells ? cells : w.window_height, columns = cells ? cells : w.window_width;
    real sum = 0;
    Along y = along(p.y, w.stride_y, w.pad_y, w.dilation_y, w.out_height);
#pragma unroll
    for (int ky = 0; ky < rows; ++ky, to_next_cell(y)) {
        Along x = along(p.x, w.stride_x, w.pad_x, w.dilation_x, w.out_width);
        int oy = window_of(y);
#pragma unroll
        for (int kx = 0; kx < columns; ++kx, cell += w.cell_step, to_next_cell(x)) {
            int ox = window_of(x);
            if (oy >= 0 && ox >= 0) sum += cell[oy * w.out_width + ox];
        }
    }
    out[i] = sum;
}

KERNEL col2im(const real* seen, real* out, Window w) { BY_WINDOW(meet, w, seen, out); }
