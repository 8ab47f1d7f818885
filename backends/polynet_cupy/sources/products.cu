// Products of small matrices, for which the tiles of a library's kernels are too large. A block
// computes a tile of TILE × TILE numbers. It goes through the terms of the sums in slabs of SLAB.
// Each warp adds up its share of a slab for the whole tile, and at the end the sums of the warps
// are added in order.

#define TILE 16
#define SLAB 128
#define WARPS 8
#define THREADS (WARPS * WARP)
#define SHARE (SLAB / WARPS)
#define ROWS 2
#define COLUMNS 4

// A matrix in memory, of which the block needs TILE rows from `first` on (of the second matrix,
// TILE columns). The numbers of a line are neighbours, and lines are `ld` numbers apart. If there
// is a `kept`, the matrix counts as 0 where `kept` is 0.
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

// How a slab of a side lies in shared memory: line by line, and lines run along the terms or along
// the tile. A line is PAD numbers longer than its content, so that few threads of a warp hit the
// same bank.
#define PAD 4
template <bool along_terms> struct Lines {
    static const int length = along_terms ? SLAB : TILE, step = length + PAD;
};

#define OF_SIDE (SLAB * (TILE + PAD))         // the most numbers that a slab takes up
#define PACKS (TILE * SLAB / PACK / THREADS)  // packs of a slab that one thread fetches

// Reads this thread's packs of the slab that begins at term `from`; zeros beyond the matrix's end.
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

// From `n` rows of the tile, `row` and those after it: a pack of terms of each, from `term` on.
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

// Adds up this thread's ROWS × COLUMNS numbers over the terms of its warp, in `sums`, and its rows
// of the first matrix alone, in `totals`.
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
        if (from) __syncthreads();  // other threads may still read the previous slabs
        lay_down<left_along>(from_left, slabs);
        lay_down<right_along>(from_right, slabs + OF_SIDE);
        __syncthreads();
        if (from + SLAB < terms) {  // the next slabs are read while this one is added up
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

// out = x·y + bias for an (m, k) and a (k, n) matrix, or max(x·y + bias, 0) with `relu`; the bias
// may be null. row_sums = Σ x over the terms: where the product is the gradient of a weight, these
// are the gradient of the bias. Each matrix lies row by row or column by column, and `kept` lies as
// x does.
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

    real* of_warps = slabs;  // the tiles of all warps, and after them their totals
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
    int e = threadIdx.x, i = first + e / TILE, j = column + e % TILE;  // one thread per number
    if (i < m && j < n) {
        real sum = bias ? bias[j] : 0;
        for (int w = 0; w < WARPS; ++w) sum += of_warps[w * TILE * TILE + e];
        out[i * n + j] = relu && sum <= 0 ? 0 : sum;  // NaN <= 0 is false: NaN stays
    }
    if (column == 0 && e < TILE && first + e < m) {
        real sum = 0;
        for (int w = 0; w < WARPS; ++w) sum += totals_of_warps[w * TILE + e];
        row_sums[first + e] = sum;
    }
}

// Keeps the device busy, so that the kernels that are started meanwhile follow without a gap.
KERNEL spin(integer clocks) {
    for (long long start = clock64(); clock64() - start < clocks;) {}
}

// out[j, i] = x[i, j]. A block turns a tile of WARP × WARP numbers, so that the threads of a warp
// read neighbours and write neighbours.
KERNEL turn(const real* x, real* out, integer rows, integer columns) {
    __shared__ real tile[WARP][WARP + 1];  // one more: a column's numbers lie in different banks
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
