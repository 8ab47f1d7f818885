// Products of small matrices, for which a library's kernels are made too large: a block for each tile
// of TILE × TILE numbers. The terms of the sums come in slabs of SLAB; of each slab a warp adds up its
// share, for the whole tile, and the warps' sums are added in their order.

#define TILE 16
#define SLAB 128
#define WARPS 8
#define THREADS (WARPS * WARP)
#define SHARE (SLAB / WARPS)
#define ROWS 2
#define COLUMNS 4

// A matrix in memory, of which the block needs TILE rows (or columns, of the second) from `first` on.
// Its lines, which lie in order, are `ld` apart. Where `kept`, if there is one, is 0, so is it.
struct Side {
    const real *at, *kept;
    integer ld;
    int first, size, terms;
    bool packed;
};

__device__ Side side(
    const real* at, const real* kept, integer ld, int first, int size, int terms
) {
    size_t all = (size_t)at | (size_t)kept | ld * sizeof(real);
    return {at, kept, ld, first, size, terms, (all & (sizeof(Pack) - 1)) == 0};
}

// How a slab of a side is laid down: line by line, whether these run along the terms or along the
// tile. A line is PAD longer than it need be, so that threads of a warp meet in few banks.
#define PAD 4
template <bool along_terms> struct Lines {
    static const int length = along_terms ? SLAB : TILE, step = length + PAD;
};

#define OF_SIDE (SLAB * (TILE + PAD))         // numbers that a slab may take up
#define PACKS (TILE * SLAB / PACK / THREADS)  // of a slab, a thread's

// This thread's packs of the slab that begins at term `from`; zeros where the matrix has ended.
template <bool along_terms>
__device__ void fetch(Pack* held, const Side& m, int from) {
    typedef Lines<along_terms> L;
#pragma unroll
    for (int q = 0; q < PACKS; ++q) {
        int e = (threadIdx.x + q * THREADS) * PACK;
        int line = e / L::length + (along_terms ? m.first : from);
        int place = e % L::length + (along_terms ? from : m.first);
        int lines = along_terms ? m.size : m.terms, end = along_terms ? m.terms : m.size;
        integer at = line * m.ld + place;
        if (m.packed && line < lines && place + PACK <= end) {
            held[q] = *(const Pack*)(m.at + at);
            if (!m.kept) continue;
            Pack kept = *(const Pack*)(m.kept + at);
            for (int k = 0; k < PACK; ++k)
                if (kept.at[k] == 0) held[q].at[k] = 0;
        } else {
            for (int k = 0; k < PACK; ++k) {
                bool there = line < lines && place + k < end && (!m.kept || m.kept[at + k] != 0);
                held[q].at[k] = there ? m.at[at + k] : 0;
            }
        }
    }
}

template <bool along_terms> __device__ void lay_down(const Pack* held, real* slab) {
    typedef Lines<along_terms> L;
#pragma unroll
    for (int q = 0; q < PACKS; ++q) {
        int e = (threadIdx.x + q * THREADS) * PACK;
        *(Pack*)(slab + e / L::length * L::step + e % L::length) = held[q];
    }
}

template <int n> struct alignas(n * sizeof(real) < 16 ? n * sizeof(real) : 16) Some { real at[n]; };

// Of `n` rows of the tile from `row` on, the terms from `term` on, as many as a pack has.
template <bool along_terms, int n>
__device__ void pick(real (&found)[n][16 / sizeof(real)], const real* slab, int row, int term) {
    const int step = Lines<along_terms>::step;
    if (along_terms) {
#pragma unroll
        for (int i = 0; i < n; ++i) {
            Pack some = *(const Pack*)(slab + (row + i) * step + term);
            for (int p = 0; p < PACK; ++p) found[i][p] = some.at[p];
        }
    } else {
#pragma unroll
        for (int p = 0; p < PACK; ++p) {
            Some<n> some = *(const Some<n>*)(slab + (term + p) * step + row);
            for (int i = 0; i < n; ++i) found[i][p] = some.at[i];
        }
    }
}

// The sums of this thread's ROWS × COLUMNS numbers over the terms of its warp, and of its rows of the
// first matrix alone.
template <bool left_along, bool right_along>
__device__ void add_up(
    real (&sums)[ROWS][COLUMNS], real (&totals)[ROWS], const Side& left, const Side& right,
    real* slabs
) {
    Pack from_left[PACKS], from_right[PACKS];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, terms = left.terms;
    int row = lane / (TILE / COLUMNS) * ROWS, column = lane % (TILE / COLUMNS) * COLUMNS;
    fetch<left_along>(from_left, left, 0);
    fetch<right_along>(from_right, right, 0);
    for (int from = 0; from < terms; from += SLAB) {
        if (from) __syncthreads();  // somebody may still read the slabs before
        lay_down<left_along>(from_left, slabs);
        lay_down<right_along>(from_right, slabs + OF_SIDE);
        __syncthreads();
        if (from + SLAB < terms) {  // the next are on their way meanwhile
            fetch<left_along>(from_left, left, from + SLAB);
            fetch<right_along>(from_right, right, from + SLAB);
        }
#pragma unroll
        for (int term = warp * SHARE; term < (warp + 1) * SHARE; term += PACK) {
            if (from + term >= terms) break;
            real x[ROWS][16 / sizeof(real)], y[COLUMNS][16 / sizeof(real)];
            pick<left_along>(x, slabs, row, term);
            pick<right_along>(y, slabs + OF_SIDE, column, term);
#pragma unroll
            for (int p = 0; p < PACK; ++p)
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    totals[i] += x[i][p];
#pragma unroll
                    for (int j = 0; j < COLUMNS; ++j) sums[i][j] += x[i][p] * y[j][p];
                }
        }
    }
    __syncthreads();
}

// out = x·y + bias, of an (m, k) and a (k, n) matrix, or, with `relu`, what of it is above 0; and
// row_sums = Σ x over the terms, which are a bias's gradient where the product is a weight's. The bias
// may be none. Each matrix lies row by row, or column by column, and `kept` as x does.
KERNEL small_product(
    const real* x, const real* kept, const real* y, const real* bias, real* out, real* row_sums,
    integer m, integer n, integer k, integer x_by_row, integer y_by_row, integer relu
) {
    __shared__ Pack store[2 * OF_SIDE * sizeof(real) / sizeof(Pack)];
    real* slabs = store->at;
    int tiles = ((int)n + TILE - 1) / TILE, first = blockIdx.x / tiles * TILE;
    int column = blockIdx.x % tiles * TILE, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Side left = side(x, kept, x_by_row ? k : m, first, (int)m, (int)k);
    Side right = side(y, 0, y_by_row ? n : k, column, (int)n, (int)k);
    real sums[ROWS][COLUMNS] = {}, totals[ROWS] = {};
    if (x_by_row && y_by_row) add_up<true, false>(sums, totals, left, right, slabs);
    else if (x_by_row) add_up<true, true>(sums, totals, left, right, slabs);
    else if (y_by_row) add_up<false, false>(sums, totals, left, right, slabs);
    else add_up<false, true>(sums, totals, left, right, slabs);

    real* of_warps = slabs;  // the tile of each warp, then the totals of each
    real* totals_of_warps = slabs + WARPS * TILE * TILE;
    int row_of_mine = lane / (TILE / COLUMNS) * ROWS, column_of_mine = lane % (TILE / COLUMNS) * COLUMNS;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
            of_warps[(warp * TILE + row_of_mine + i) * TILE + column_of_mine + j] = sums[i][j];
        if (column_of_mine == 0) totals_of_warps[warp * TILE + row_of_mine + i] = totals[i];
    }
    __syncthreads();
    int e = threadIdx.x, i = first + e / TILE, j = column + e % TILE;  // a thread for each number
    if (i < m && j < n) {
        real sum = bias ? bias[j] : 0;
        for (int w = 0; w < WARPS; ++w) sum += of_warps[w * TILE * TILE + e];
        out[i * n + j] = relu && sum <= 0 ? 0 : sum;  // which a NaN is not: it stays
    }
    if (column == 0 && e < TILE && first + e < m) {
        real sum = 0;
        for (int w = 0; w < WARPS; ++w) sum += totals_of_warps[w * TILE + e];
        row_sums[first + e] = sum;
    }
}

// Keeps the device busy, so that what is started meanwhile follows at once.
KERNEL spin(integer clocks) {
    for (long long start = clock64(); clock64() - start < clocks;) {}
}

// out[j, i] = x[i, j]: a block for each tile of WARP × WARP numbers, so that all are read, and
// written, side by side.
KERNEL turn(const real* x, real* out, integer rows, integer columns) {
    __shared__ real tile[WARP][WARP + 1];  // one more, so that a column's numbers lie in all banks
    Divided at = divided(blockIdx.x, (columns + WARP - 1) / WARP);
    integer top = at.whole * WARP, left = at.rest * WARP;
    int lane = threadIdx.x % WARP;
    for (int i = threadIdx.x / WARP; i < WARP; i += THREADS / WARP)
        if (top + i < rows && left + lane < columns)
            tile[i][lane] = x[(top + i) * columns + left + lane];
    __syncthreads();
    for (int j = threadIdx.x / WARP; j < WARP; j += THREADS / WARP)
        if (left + j < columns && top + lane < rows)
            out[(left + j) * rows + top + lane] = tile[lane][j];
}
