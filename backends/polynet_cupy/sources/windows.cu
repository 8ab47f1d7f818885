// Pooling, and what a convolution's window sees; images of several channels are so many planes.
// What goes back is gathered: each place adds up the windows that see it, always in one order.

// Sizes of planes and of what comes out, and how the window goes over them, from the host; of a
// convolution also how many planes an image has, and how far apart in what the window sees (seen)
// images, planes and cells stand.
struct Window {
    integer planes, height, width, out_height, out_width, window_height, window_width, stride_y,
        stride_x, pad_y, pad_x, dilation_y, dilation_x, channels, image_step, plane_step, cell_step;
};

struct Place { int plane, y, x; };

__device__ Place place(integer i, integer height, integer width) {
    return {(int)(i / (height * width)), (int)(i / width % height), (int)(i % width)};
}

// Which window has its cell k at a place, along one axis; -1 for none.
__device__ int window_at(
    int place, int k, integer stride, integer pad, integer dilation, integer out
) {
    int from = place + (int)pad - k * (int)dilation;
    if (stride == 1) return from < out ? from : -1;  // which needs no division
    if (from < 0 || from % (int)stride) return -1;
    return from / (int)stride < out ? from / (int)stride : -1;
}

// The largest number in each window, the first of several, and where it stood in its plane; NaN
// wins, the last of several. Padding is -∞, at -1.
KERNEL max_pool_forward(const real* x, real* y, int* places, Window w) {
    integer i = here();
    if (i >= w.planes * w.out_height * w.out_width) return;
    Place o = place(i, w.out_height, w.out_width);
    const real* plane = x + o.plane * w.height * w.width;
    real largest = 0;
    int found = -1;
    for (int ky = 0; ky < w.window_height; ++ky)
        for (int kx = 0; kx < w.window_width; ++kx) {
            int r = o.y * (int)w.stride_y - (int)w.pad_y + ky * (int)w.dilation_y;
            int c = o.x * (int)w.stride_x - (int)w.pad_x + kx * (int)w.dilation_x;
            bool inside = 0 <= r && r < w.height && 0 <= c && c < w.width;
            real cell = inside ? plane[r * w.width + c] : -INFINITY_;
            if ((!ky && !kx) || cell > largest || cell != cell) {
                largest = cell;
                found = inside ? r * (int)w.width + c : -1;
            }
        }
    y[i] = largest;
    places[i] = found;
}

KERNEL max_pool_backward(const real* g, const int* places, real* out, Window w) {
    integer i = here();
    if (i >= w.planes * w.height * w.width) return;
    Place p = place(i, w.height, w.width);
    integer from = p.plane * w.out_height * w.out_width;
    int mine = p.y * (int)w.width + p.x;
    real sum = 0;
    for (int ky = 0; ky < w.window_height; ++ky) {
        int oy = window_at(p.y, ky, w.stride_y, w.pad_y, w.dilation_y, w.out_height);
        for (int kx = 0; oy >= 0 && kx < w.window_width; ++kx) {
            int ox = window_at(p.x, kx, w.stride_x, w.pad_x, w.dilation_x, w.out_width);
            if (ox < 0) continue;
            integer o = from + oy * w.out_width + ox;
            if (places[o] == mine) sum += g[o];
        }
    }
    out[i] = sum;
}

// How many cells of a window count, along one axis: those within the padding, or only within.
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

// The mean of each window; zeros of the padding count where `with_pad`.
KERNEL avg_pool_forward(const real* x, real* y, Window w, integer with_pad) {
    integer i = here();
    if (i >= w.planes * w.out_height * w.out_width) return;
    Place o = place(i, w.out_height, w.out_width);
    const real* plane = x + o.plane * w.height * w.width;
    real sum = 0;
    for (int ky = 0; ky < w.window_height; ++ky)
        for (int kx = 0; kx < w.window_width; ++kx) {
            int r = o.y * (int)w.stride_y - (int)w.pad_y + ky;
            int c = o.x * (int)w.stride_x - (int)w.pad_x + kx;
            if (0 <= r && r < w.height && 0 <= c && c < w.width) sum += plane[r * w.width + c];
        }
    y[i] = sum / cells(w, o.y, o.x, with_pad);
}

KERNEL avg_pool_backward(const real* g, real* out, Window w, integer with_pad) {
    integer i = here();
    if (i >= w.planes * w.height * w.width) return;
    Place p = place(i, w.height, w.width);
    real sum = 0;
    for (int ky = 0; ky < w.window_height; ++ky) {
        int oy = window_at(p.y, ky, w.stride_y, w.pad_y, 1, w.out_height);
        for (int kx = 0; oy >= 0 && kx < w.window_width; ++kx) {
            int ox = window_at(p.x, kx, w.stride_x, w.pad_x, 1, w.out_width);
            if (ox < 0) continue;
            integer o = (p.plane * w.out_height + oy) * w.out_width + ox;
            sum += g[o] / cells(w, oy, ox, with_pad);
        }
    }
    out[i] = sum;
}

// Where in `seen` stands what the window sees of a plane, its first cell at its first place.
__device__ integer of_plane(int plane, const Window& w) {
    return plane / w.channels * w.image_step + plane % w.channels * w.plane_step;
}

// seen[…, cell, …, place]: what each cell of the window sees, as rows of a matrix (im2col). A thread
// has one place of the window and goes through its cells.
template <typename number>
__device__ void see(const number* x, number* seen, const Window& w) {
    integer i = here(), outs = w.out_height * w.out_width;
    if (i >= w.planes * outs) return;
    Place o = place(i, w.out_height, w.out_width);
    const number* plane = x + o.plane * w.height * w.width;
    number* to = seen + of_plane(o.plane, w) + i % outs;
    for (int ky = 0; ky < w.window_height; ++ky)
        for (int kx = 0; kx < w.window_width; ++kx, to += w.cell_step) {
            int r = o.y * (int)w.stride_y - (int)w.pad_y + ky * (int)w.dilation_y;
            int c = o.x * (int)w.stride_x - (int)w.pad_x + kx * (int)w.dilation_x;
            bool inside = 0 <= r && r < w.height && 0 <= c && c < w.width;
            *to = inside ? plane[r * w.width + c] : 0;
        }
}

KERNEL im2col(const real* x, real* seen, Window w) { see(x, seen, w); }

KERNEL im2col_bfloat16(const bfloat16* x, bfloat16* seen, Window w) { see(x, seen, w); }

// Its transpose: each place of each plane adds up the cells that saw it.
KERNEL col2im(const real* seen, real* out, Window w) {
    integer i = here();
    if (i >= w.planes * w.height * w.width) return;
    Place p = place(i, w.height, w.width);
    const real* rows = seen + of_plane(p.plane, w);
    real sum = 0;
    for (int ky = 0; ky < w.window_height; ++ky) {
        int oy = window_at(p.y, ky, w.stride_y, w.pad_y, w.dilation_y, w.out_height);
        for (int kx = 0; oy >= 0 && kx < w.window_width; ++kx) {
            int ox = window_at(p.x, kx, w.stride_x, w.pad_x, w.dilation_x, w.out_width);
            if (ox < 0) continue;
            sum += rows[(ky * w.window_width + kx) * w.cell_step + oy * w.out_width + ox];
        }
    }
    out[i] = sum;
}
