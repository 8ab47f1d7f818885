// Convolution with windows of 3 × 3 cells and stride 1, for 2 × 2 places at a time: F(2 × 2, 3 × 3)
// of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), after
// Winograd. The windows at 2 × 2 places see a tile of 4 × 4 numbers. The tile is transformed to 16
// numbers, and so is the window; multiplying them takes 16 multiplications, and the four windows
// one by one take 36.
//
// Along one axis, let w be a window, s what it sees, and y its results at two places:
//     y = Aᵀ(G w ∘ Bᵀ s)
// If g is the gradient of y, the gradient of w is Gᵀ(A g ∘ Bᵀ s). The gradient of s is a
// convolution again: of g, with the windows turned round.

// Bᵀ
__device__ void seen(const real (&s)[4], real (&v)[4]) {
    v[0] = s[0] - s[2], v[1] = s[1] + s[2], v[2] = s[2] - s[1], v[3] = s[1] - s[3];
}

// G
__device__ void widened(const real (&w)[3], real (&u)[4]) {
    real ends = (w[0] + w[2]) / 2, middle = w[1] / 2;
    u[0] = w[0], u[1] = ends + middle, u[2] = ends - middle, u[3] = w[2];
}

// Gᵀ
__device__ void narrowed(const real (&u)[4], real (&w)[3]) {
    real ends = (u[1] + u[2]) / 2, middle = (u[1] - u[2]) / 2;
    w[0] = u[0] + ends, w[1] = middle, w[2] = ends + u[3];
}

// Aᵀ
__device__ void met(const real (&m)[4], real (&y)[2]) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
}

// A
__device__ void spread(const real (&y)[2], real (&m)[4]) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
}

// Applies one of these along both axes, first down the columns.
template <auto along, int from, int to>
__device__ void both(const real (&x)[from][from], real (&y)[to][to]) {
    real half[to][from];
#pragma unroll
    for (int j = 0; j < from; ++j) {
        real column[from], found[to];
#pragma unroll
        for (int i = 0; i < from; ++i) column[i] = x[i][j];
        along(column, found);
#pragma unroll
        for (int i = 0; i < to; ++i) half[i][j] = found[i];
    }
#pragma unroll
    for (int i = 0; i < to; ++i) along(half[i], y[i]);
}

// The host's description of images and of the tiles that go over them. A plane has `rows` ×
// `columns` tiles, and the first one begins at (-pad_y, -pad_x). The 16 numbers of a tile are in 16
// matrices, in which each channel has a row. Every `together` images have 16 such matrices of their
// own.
struct Tiles {
    int images, channels, height, width, rows, columns, pad_y, pad_x, together;
};

// The tile of a thread: its plane, the place (y, x) of its first number, the index `at` of its
// number in the first of the 16 matrices, and the distance `step` from one matrix to the next.
struct Tile { integer plane; int y, x; integer at, step; };

__device__ integer count(const Tiles& t) {
    return (integer)t.images * t.channels * t.rows * t.columns;
}

__device__ Tile tile(integer i, const Tiles& t) {
    Divided plane = divided(i, (integer)t.rows * t.columns), row = divided(plane.rest, t.columns);
    Divided channel = divided(plane.whole, t.together), sixteen = divided(channel.whole, t.channels);
    integer image = sixteen.whole * t.together + channel.rest;
    integer step = (integer)t.channels * t.together * t.rows * t.columns;
    return {image * t.channels + sixteen.rest, 2 * (int)row.whole - t.pad_y,
            2 * (int)row.rest - t.pad_x, i + sixteen.whole * 15 * step, step};
}

// The number of a plane at (y, x); 0 outside of the plane.
__device__ real at(const real* plane, int y, int x, const Tiles& t) {
    bool inside = 0 <= y && y < t.height && 0 <= x && x < t.width;
    return inside ? plane[y * t.width + x] : 0;
}

// Transforms the first `size` × `size` numbers of each tile, and writes them into the matrices.
template <auto along, int size>
__device__ void taken(const real* __restrict__ x, real* __restrict__ out, const Tiles& t) {
    integer i = here();
    if (i >= count(t)) return;
    Tile mine = tile(i, t);
    const real* plane = x + mine.plane * t.height * t.width;
    real numbers[size][size], found[4][4];
#pragma unroll
    for (int j = 0; j < size; ++j)
#pragma unroll
        for (int k = 0; k < size; ++k) numbers[j][k] = at(plane, mine.y + j, mine.x + k, t);
    both<along>(numbers, found);
#pragma unroll
    for (int j = 0; j < 16; ++j) out[mine.at + j * mine.step] = found[j / 4][j % 4];
}

KERNEL winograd_seen(const real* x, real* out, Tiles t) { taken<seen, 4>(x, out, t); }

KERNEL winograd_of_places(const real* g, real* out, Tiles t) { taken<spread, 2>(g, out, t); }

// Images from the products of all tiles. An image may end before its last tiles do.
KERNEL winograd_places(const real* products, real* y, Tiles t) {
    integer i = here();
    if (i >= count(t)) return;
    Tile mine = tile(i, t);
    real numbers[4][4], found[2][2];
#pragma unroll
    for (int j = 0; j < 16; ++j) numbers[j / 4][j % 4] = products[mine.at + j * mine.step];
    both<met>(numbers, found);
    real* plane = y + mine.plane * t.height * t.width;
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (mine.y + j < t.height && mine.x + k < t.width)
                plane[(mine.y + j) * t.width + mine.x + k] = found[j][k];
}

// The 16 numbers of each of `count` windows, in 16 matrices; of the windows turned round if
// `turned`.
KERNEL winograd_windows(const real* w, real* out, integer count, integer turned) {
    integer i = here();
    if (i >= count) return;
    real window[3][3], found[4][4];
#pragma unroll
    for (int j = 0; j < 9; ++j) window[j / 3][j % 3] = w[i * 9 + (turned ? 8 - j : j)];
    both<widened>(window, found);
#pragma unroll
    for (int j = 0; j < 16; ++j) out[j * count + i] = found[j / 4][j % 4];
}

// The gradient of the windows from that of their matrices, which is the sum of `parts` parts.
KERNEL winograd_of_windows(const real* g, real* out, integer count, integer parts) {
    integer i = here();
    if (i >= count) return;
    real sums[4][4] = {}, window[3][3];
    for (integer part = 0; part < parts; ++part)
#pragma unroll
        for (int j = 0; j < 16; ++j) sums[j / 4][j % 4] += g[(part * 16 + j) * count + i];
    both<narrowed>(sums, window);
#pragma unroll
    for (int j = 0; j < 9; ++j) out[i * 9 + j] = window[j / 3][j % 3];
}
