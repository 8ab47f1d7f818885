// Pooling, and the numbers that the window of a convolution sees. All windows have three axes. The
// plane of an image is a volume of one place along z. An image of several channels is that many
// volumes. The backward pass gathers: each place adds up the windows that see it, always in the
// same order.

// A number for each axis.
struct Axes { int z, y, x; };

// The host's description of a window and of how it goes over volumes: the sizes of the volumes, of
// the result and of the window, and the steps of the window. For a convolution also how many
// volumes an image has (`channels`), and the distances in the matrix of what the window sees
// (`seen`) from one image, volume and cell to the next.
struct Window {
    Axes size, out, window, stride, pad, dilation;
    int volumes, channels;
    integer image_step, volume_step, cell_step;
};

// A window of images or sequences, which have one place along z. In the kernels that say so the
// compiler leaves out all that is done about z; those for volumes have names that end in `_3d`.
__device__ Window flat(Window w) {
    w.size.z = w.out.z = w.window.z = w.stride.z = w.dilation.z = 1, w.pad.z = 0;
    return w;
}

// How many places a volume has.
__device__ integer places_in(Axes size) { return (integer)size.z * size.y * size.x; }

struct Place { int volume, z, y, x; };

__device__ Place place(integer i, Axes size) {
    Divided volume = divided(i, places_in(size)), plane = {0, volume.rest};
    if (size.z > 1) plane = divided(volume.rest, (integer)size.y * size.x);
    Divided row = divided(plane.rest, size.x);
    return {(int)volume.whole, (int)plane.whole, (int)row.whole, (int)row.rest};
}

// The index of a place, if its volume begins at index `from`.
template <typename number = int>
__device__ number index(Place p, Axes size, number from = 0) {
    return from + (p.z * size.y + p.y) * size.x + p.x;
}

__device__ bool inside(Place p, Axes size) {
    return 0 <= p.z && p.z < size.z && 0 <= p.y && p.y < size.y && 0 <= p.x && p.x < size.x;
}

// The place of cell (kz, ky, kx) of the window that is at place `o` of the result.
__device__ Place cell_at(Place o, int kz, int ky, int kx, const Window& w) {
    return {o.volume, o.z * w.stride.z - w.pad.z + kz * w.dilation.z,
            o.y * w.stride.y - w.pad.y + ky * w.dilation.y,
            o.x * w.stride.x - w.pad.x + kx * w.dilation.x};
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

// Calls f(o) for each window that has a cell at a place; o is the window's place in the result.
template <typename Function>
__device__ void for_windows_over(Place p, const Window& w, Function f) {
    if (w.dilation.z == 1 && w.dilation.y == 1 && w.dilation.x == 1) {
        Span planes = windows_over(p.z, w.window.z, w.stride.z, w.pad.z, w.out.z);
        Span rows = windows_over(p.y, w.window.y, w.stride.y, w.pad.y, w.out.y);
        Span columns = windows_over(p.x, w.window.x, w.stride.x, w.pad.x, w.out.x);
        for (int oz = planes.first; oz <= planes.last; ++oz)
            for (int oy = rows.first; oy <= rows.last; ++oy)
                for (int ox = columns.first; ox <= columns.last; ++ox) f({p.volume, oz, oy, ox});
        return;
    }
    Along z = along(p.z, w.stride.z, w.pad.z, w.dilation.z, w.out.z);
    for (int kz = 0; kz < w.window.z; ++kz, to_next_cell(z)) {
        Along y = along(p.y, w.stride.y, w.pad.y, w.dilation.y, w.out.y);
        int oz = window_of(z);
        for (int ky = 0; oz >= 0 && ky < w.window.y; ++ky, to_next_cell(y)) {
            Along x = along(p.x, w.stride.x, w.pad.x, w.dilation.x, w.out.x);
            int oy = window_of(y);
            for (int kx = 0; oy >= 0 && kx < w.window.x; ++kx, to_next_cell(x)) {
                int ox = window_of(x);
                if (ox >= 0) f({p.volume, oz, oy, ox});
            }
        }
    }
}

__device__ void largest(const real* x, real* y, int* places, const Window& w) {
    integer i = here();
    if (i >= w.volumes * places_in(w.out)) return;
    Place o = place(i, w.out);
    const real* volume = x + o.volume * places_in(w.size);
    real largest = 0;
    int found = -1;
    for (int kz = 0; kz < w.window.z; ++kz)
        for (int ky = 0; ky < w.window.y; ++ky)
            for (int kx = 0; kx < w.window.x; ++kx) {
                Place at = cell_at(o, kz, ky, kx, w);
                bool there = inside(at, w.size);
                int place = index(at, w.size);
                real cell = there ? volume[place] : -INFINITY_;
                if ((!kz && !ky && !kx) || cell > largest || cell != cell) {
                    largest = cell;
                    found = there ? place : -1;
                }
            }
    y[i] = largest;
    places[i] = found;
}

// The largest number in each window, and its index in the volume. Of several equal numbers the first
// one wins; NaN wins over numbers, and of several NaN the last one. Padding counts as -∞, with
// index -1.
KERNEL max_pool_forward(const real* x, real* y, int* places, Window w) {
    largest(x, y, places, flat(w));
}

KERNEL max_pool_forward_3d(const real* x, real* y, int* places, Window w) {
    largest(x, y, places, w);
}

__device__ void to_largest(const real* g, const int* places, real* out, const Window& w) {
    integer i = here();
    if (i >= w.volumes * places_in(w.size)) return;
    Place p = place(i, w.size);
    integer from = p.volume * places_in(w.out);
    int mine = index(p, w.size);
    real sum = 0;
    for_windows_over(p, w, [&](Place o) {
        integer at = index(o, w.out, from);
        if (places[at] == mine) sum += g[at];
    });
    out[i] = sum;
}

KERNEL max_pool_backward(const real* g, const int* places, real* out, Window w) {
    to_largest(g, places, out, flat(w));
}

KERNEL max_pool_backward_3d(const real* g, const int* places, real* out, Window w) {
    to_largest(g, places, out, w);
}

// How many cells of a window count along one axis: those within the padded volume if `with_pad`,
// else only those within the volume.
__device__ real counted(
    int o, integer n, integer window, integer stride, integer pad, integer with_pad
) {
    integer from = o * stride - pad, end = from + window, low = with_pad ? -pad : 0;
    integer high = with_pad ? n + pad : n;
    return (real)((end < high ? end : high) - (from > low ? from : low));
}

__device__ real cells(Place o, const Window& w, integer with_pad) {
    return counted(o.z, w.size.z, w.window.z, w.stride.z, w.pad.z, with_pad) *
           counted(o.y, w.size.y, w.window.y, w.stride.y, w.pad.y, with_pad) *
           counted(o.x, w.size.x, w.window.x, w.stride.x, w.pad.x, with_pad);
}

__device__ void mean_of(const real* x, real* y, Window w, integer with_pad) {
    w.dilation = {1, 1, 1};
    integer i = here();
    if (i >= w.volumes * places_in(w.out)) return;
    Place o = place(i, w.out);
    const real* volume = x + o.volume * places_in(w.size);
    real sum = 0;
    for (int kz = 0; kz < w.window.z; ++kz)
        for (int ky = 0; ky < w.window.y; ++ky)
            for (int kx = 0; kx < w.window.x; ++kx) {
                Place at = cell_at(o, kz, ky, kx, w);
                if (inside(at, w.size)) sum += volume[index(at, w.size)];
            }
    y[i] = sum / cells(o, w, with_pad);
}

// The mean of each window; the zeros of the padding count if `with_pad`.
KERNEL avg_pool_forward(const real* x, real* y, Window w, integer with_pad) {
    mean_of(x, y, flat(w), with_pad);
}

KERNEL avg_pool_forward_3d(const real* x, real* y, Window w, integer with_pad) {
    mean_of(x, y, w, with_pad);
}

__device__ void to_mean(const real* g, real* out, Window w, integer with_pad) {
    w.dilation = {1, 1, 1};
    integer i = here();
    if (i >= w.volumes * places_in(w.size)) return;
    Place p = place(i, w.size);
    integer from = p.volume * places_in(w.out);
    real sum = 0;
    for_windows_over(p, w, [&](Place o) {
        sum += g[index(o, w.out, from)] / cells(o, w, with_pad);
    });
    out[i] = sum;
}

KERNEL avg_pool_backward(const real* g, real* out, Window w, integer with_pad) {
    to_mean(g, out, flat(w), with_pad);
}

KERNEL avg_pool_backward_3d(const real* g, real* out, Window w, integer with_pad) {
    to_mean(g, out, w, with_pad);
}

// The index in `seen` of what the window's first cell sees of a volume at the window's first place.
__device__ integer of_volume(int volume, const Window& w) {
    return volume / w.channels * w.image_step + volume % w.channels * w.volume_step;
}

// Calls f<n>(…) for a window of n × n cells along y and x, of a usual size, and f<0>(…) for any
// other window. Where the compiler knows the length of a loop, all its reads are under way before
// the first one is waited for.
#define BY_WINDOW(f, w, ...)                                            \
    if (w.window.y == 3 && w.window.x == 3) f<3>(__VA_ARGS__, w);       \
    else if (w.window.y == 5 && w.window.x == 5) f<5>(__VA_ARGS__, w);  \
    else f<0>(__VA_ARGS__, w)

// seen[…, cell, …, place]: what each cell of the window sees, as the rows of a matrix (im2col). A
// thread takes one place of the window, and goes through the window's cells.
template <int cells, typename number>
__device__ void see(const number* __restrict__ x, number* __restrict__ seen, const Window& w) {
    integer i = here();
    if (i >= w.volumes * places_in(w.out)) return;
    Place o = place(i, w.out);
    const number* volume = x + o.volume * places_in(w.size);
    number* to = seen + of_volume(o.volume, w) + index(o, w.out);
    int rows = cells ? cells : w.window.y, columns = cells ? cells : w.window.x;
    for (int kz = 0; kz < w.window.z; ++kz)
#pragma unroll
        for (int ky = 0; ky < rows; ++ky)
#pragma unroll
            for (int kx = 0; kx < columns; ++kx, to += w.cell_step) {
                Place at = cell_at(o, kz, ky, kx, w);
                *to = inside(at, w.size) ? volume[index(at, w.size)] : 0;
            }
}

KERNEL im2col(const real* x, real* seen, Window w) { BY_WINDOW(see, flat(w), x, seen); }

KERNEL im2col_3d(const real* x, real* seen, Window w) { BY_WINDOW(see, w, x, seen); }

KERNEL im2col_bfloat16(const bfloat16* x, bfloat16* seen, Window w) {
    BY_WINDOW(see, flat(w), x, seen);
}

KERNEL im2col_bfloat16_3d(const bfloat16* x, bfloat16* seen, Window w) {
    BY_WINDOW(see, w, x, seen);
}

// The transpose of im2col (col2im): each place of each volume adds up the cells that saw it.
template <int cells>
__device__ void meet(const real* __restrict__ seen, real* __restrict__ out, const Window& w) {
    integer i = here();
    if (i >= w.volumes * places_in(w.size)) return;
    Place p = place(i, w.size);
    const real* cell = seen + of_volume(p.volume, w);
    int rows = cells ? cells : w.window.y, columns = cells ? cells : w.window.x;
    real sum = 0;
    Along z = along(p.z, w.stride.z, w.pad.z, w.dilation.z, w.out.z);
    for (int kz = 0; kz < w.window.z; ++kz, to_next_cell(z)) {
        Along y = along(p.y, w.stride.y, w.pad.y, w.dilation.y, w.out.y);
        int oz = window_of(z);
#pragma unroll
        for (int ky = 0; ky < rows; ++ky, to_next_cell(y)) {
            Along x = along(p.x, w.stride.x, w.pad.x, w.dilation.x, w.out.x);
            int oy = window_of(y);
#pragma unroll
            for (int kx = 0; kx < columns; ++kx, cell += w.cell_step, to_next_cell(x)) {
                int ox = window_of(x);
                if (oz >= 0 && oy >= 0 && ox >= 0) sum += cell[index({0, oz, oy, ox}, w.out)];
            }
        }
    }
    out[i] = sum;
}

KERNEL col2im(const real* seen, real* out, Window w) { BY_WINDOW(meet, flat(w), seen, out); }

KERNEL col2im_3d(const real* seen, real* out, Window w) { BY_WINDOW(meet, w, seen, out); }
