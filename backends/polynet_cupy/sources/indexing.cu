// Rows gathered by index, and rows added by segment, which is the backward pass of a gather.

// out[i] = x[indices[i]], for rows of `words` words of 32 bits. A negative index counts from the
// end, and an index outside of the rows wraps around, as in CuPy's own `take`. A thread copies
// `each` words: 4 where the rows and their addresses are whole multiples of 4 words, else 1.
struct alignas(16) Words { unsigned at[4]; };

KERNEL gather_rows(
    const unsigned* x, const void* indices, integer wide, unsigned* out, integer count,
    integer words, integer rows, integer each
) {
    integer i = here() * each;
    if (i >= count * words) return;
    Divided place = divided(i, words);
    integer row = integer_at(indices, wide, place.whole);
    if (row < 0 || row >= rows) row = (row % rows + rows) % rows;
    const unsigned* from = x + row * words + place.rest;
    if (each == 1) out[i] = *from;
    else *(Words*)(out + i) = *(const Words*)from;
}

// For each row: the next row of its segment, or n if it is the last; and whether it is the first.
// A row is compared with all others: up to 10⁵ rows this costs less than sorting them.
KERNEL segment_chains(const void* segments, integer wide, int* next, bool* first, integer n) {
    integer i = here();
    if (i >= n) return;
    integer mine = integer_at(segments, wide, i), j = i + 1, k = i - 1;
    while (j < n && integer_at(segments, wide, j) != mine) ++j;
    while (k >= 0 && integer_at(segments, wide, k) != mine) --k;
    next[i] = (int)j;
    first[i] = k < 0;
}

// The rows of each segment, added in their order. The threads of a segment's first row do this, one
// thread for each column.
KERNEL segment_sum(
    const real* x, const void* segments, integer wide, const int* next, const bool* first,
    real* out, integer n, integer width, integer count
) {
    Divided place = divided(here(), width);
    integer i = place.whole, column = place.rest;
    if (i >= n || !first[i]) return;
    integer segment = integer_at(segments, wide, i);
    if (segment < 0 || segment >= count) return;
    real sum = 0;
    for (integer row = i; row < n; row = next[row]) sum += x[row * width + column];
    out[segment * width + column] = sum;
}

// Copies single numbers, which may lie anywhere, into a row. Their addresses are passed by value.
#define MOST_NUMBERS 64
struct Numbers { const real* at[MOST_NUMBERS]; };

KERNEL in_a_row(Numbers numbers, real* out, integer count) {
    if (threadIdx.x < count) out[threadIdx.x] = *numbers.at[threadIdx.x];
}
