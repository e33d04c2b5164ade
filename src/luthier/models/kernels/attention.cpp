// Causal attention over documents that lie end to end, forward and backward, for processors with AVX512-BF16.
//
// Queries, keys and values are bfloat16 and lie in rows of tokens; scores and sums are float32, and no score outlives
// its block of queries (Dao 2022): the forward keeps one float per token and head, the backward computes the scores
// again. A *unit* is a run of query rows and the chain of token ranges that they may see: all of the ranges before the
// unit's own, and its own up to the query itself. Units of one *group* may share keys; groups share none. One thread
// does all units of a group and key-value head, so nothing is added in an order that depends on threads.
// The plain version is `plain_attention` in `attention.py` one folder up.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512BF16__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

namespace {

constexpr int64_t kRows = 32;  // query rows that are computed together

typedef uint16_t bf16;
typedef uint32_t pair;  // two neighbouring bf16 values, as the products take them

// Memory of one thread, grown as needed and kept.
struct Scratch {
  char *base = nullptr;
  size_t size = 0, used = 0;
  ~Scratch() { std::free(base); }
  void reserve(size_t bytes) {
    used = 0;
    if (bytes <= size) return;
    std::free(base);
    size = (bytes + 4095) / 4096 * 4096;
    base = static_cast<char *>(std::aligned_alloc(64, size));
  }
  template <typename T>
  T *take(size_t count) {
    T *start = reinterpret_cast<T *>(base + used);
    used += (count * sizeof(T) + 63) / 64 * 64;
    return start;
  }
};
thread_local Scratch scratch;

inline int64_t up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
inline __m256i to_bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
inline __m512 to_float(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

// C[M, 16 V] = (C +) sum over k of A(m, k) B[k, 16 V], where A's and B's entries are pairs that are multiplied and added.
template <int M, int V>
inline void tile(const pair *a, int64_t a_row, int64_t a_step, const pair *b, int64_t b_row, int64_t steps, float *c,
                 int64_t c_row, bool add) {
  __m512 sum[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) sum[m][v] = add ? _mm512_loadu_ps(c + m * c_row + 16 * v) : _mm512_setzero_ps();
  for (int64_t k = 0; k < steps; k++) {
    __m512bh right[V];
    for (int v = 0; v < V; v++) right[v] = (__m512bh)_mm512_loadu_si512(b + k * b_row + 16 * v);
    for (int m = 0; m < M; m++) {
      __m512bh left = (__m512bh)_mm512_set1_epi32(int(a[m * a_row + k * a_step]));
      for (int v = 0; v < V; v++) sum[m][v] = _mm512_dpbf16_ps(sum[m][v], left, right[v]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) _mm512_storeu_ps(c + m * c_row + 16 * v, sum[m][v]);
}

template <int M>
inline void tile_row(const pair *a, int64_t a_row, int64_t a_step, const pair *b, int64_t b_row, int64_t steps,
                     float *c, int64_t c_row, int64_t columns, bool add) {
  int64_t n = 0;
  for (; n + 64 <= columns; n += 64) tile<M, 4>(a, a_row, a_step, b + n, b_row, steps, c + n, c_row, add);
  switch ((columns - n) / 16) {
    case 3: tile<M, 3>(a, a_row, a_step, b + n, b_row, steps, c + n, c_row, add); break;
    case 2: tile<M, 2>(a, a_row, a_step, b + n, b_row, steps, c + n, c_row, add); break;
    case 1: tile<M, 1>(a, a_row, a_step, b + n, b_row, steps, c + n, c_row, add); break;
  }
}

// C[rows, columns] = (C +) A B; `columns` is a multiple of 16.
void product(const pair *a, int64_t a_row, int64_t a_step, const pair *b, int64_t b_row, int64_t steps, float *c,
             int64_t c_row, int64_t rows, int64_t columns, bool add) {
  int64_t m = 0;
  for (; m + 6 <= rows; m += 6)
    tile_row<6>(a + m * a_row, a_row, a_step, b, b_row, steps, c + m * c_row, c_row, columns, add);
  a += m * a_row;
  c += m * c_row;
  switch (rows - m) {
    case 5: tile_row<5>(a, a_row, a_step, b, b_row, steps, c, c_row, columns, add); break;
    case 4: tile_row<4>(a, a_row, a_step, b, b_row, steps, c, c_row, columns, add); break;
    case 3: tile_row<3>(a, a_row, a_step, b, b_row, steps, c, c_row, columns, add); break;
    case 2: tile_row<2>(a, a_row, a_step, b, b_row, steps, c, c_row, columns, add); break;
    case 1: tile_row<1>(a, a_row, a_step, b, b_row, steps, c, c_row, columns, add); break;
  }
}


// 2^x for x <= 0, as 2^n p(r): relative error below 3e-7.
inline __m512 exp2_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);  // in this order NaN stays NaN
  __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.535336188e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339887440e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618437357e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550332548e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264791e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472028e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

inline __m512 tanh_of(__m512 x) {  // 1 - 2 / (e^2x + 1), by |x|
  __m512 size = _mm512_abs_ps(x);
  __m512 e = exp2_of(_mm512_mul_ps(size, _mm512_set1_ps(-2.885390082f)));
  __m512 one = _mm512_set1_ps(1.0f);
  __m512 t = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
  __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mask_sub_ps(t, below, _mm512_setzero_ps(), t);
}

struct Call {
  const bf16 *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  int64_t heads, kv_heads, size;
  float scale, cap;
  int64_t window;  // 0: all
  const int64_t *units;   // per unit: first query row, queries, first range of its chain, ranges, keys of the chain
  const int64_t *ranges;  // per range: first token, tokens
  const int64_t *places;  // per query row: its place in the chain
};

struct Unit {
  int64_t first, queries, ranges_at, ranges, keys;
};

inline Unit unit_of(const Call &call, int64_t n) {
  const int64_t *u = call.units + 5 * n;
  return {u[0], u[1], u[2], u[3], u[4]};
}

// Gathers rows of the chain, [keys, size], as pairs of neighbouring columns: to[size / 2][padded].
void columns_of(const Call &call, const Unit &unit, const bf16 *x, int64_t stride, int64_t padded, pair *to) {
  int64_t at = 0, half = call.size / 2;
  for (int64_t n = 0; n < unit.ranges; n++) {
    const int64_t *range = call.ranges + 2 * (unit.ranges_at + n);
    const bf16 *from = x + range[0] * stride;
    for (int64_t i = 0; i < range[1]; i++, at++, from += stride) {
      const pair *row = reinterpret_cast<const pair *>(from);
      for (int64_t d = 0; d < half; d++) to[d * padded + at] = row[d];
    }
  }
  for (; at < padded; at++)
    for (int64_t d = 0; d < half; d++) to[d * padded + at] = 0;
}

inline void interleave(const bf16 *even, const bf16 *odd, int64_t size, pair *to) {
  for (int64_t d = 0; d < size; d += 16) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(even + d)));
    __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(odd + d)))
                       : _mm512_setzero_si512();
    _mm512_storeu_si512(to + d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

// Gathers rows of the chain as pairs of neighbouring rows: to[padded / 2][size].
void rows_of(const Call &call, const Unit &unit, const bf16 *x, int64_t stride, int64_t padded, pair *to) {
  int64_t at = 0;
  const bf16 *before = nullptr;
  for (int64_t n = 0; n < unit.ranges; n++) {
    const int64_t *range = call.ranges + 2 * (unit.ranges_at + n);
    const bf16 *from = x + range[0] * stride;
    for (int64_t i = 0; i < range[1]; i++, at++, from += stride) {
      if (at % 2) interleave(before, from, call.size, to + at / 2 * call.size);
      before = from;
    }
  }
  if (at % 2) interleave(before, nullptr, call.size, to + at++ / 2 * call.size);
  std::memset(to + at / 2 * call.size, 0, size_t(padded - at) / 2 * call.size * sizeof(pair));
}

// The keys that a block of queries sees, in whole sixteens.
struct Span {
  int64_t from, count;
};

inline Span span_of(const Call &call, const int64_t *places, int64_t rows) {
  int64_t last = places[rows - 1] + 1;
  int64_t from = call.window ? std::max<int64_t>(0, places[0] + 1 - call.window) / 16 * 16 : 0;
  return {from, up(last - from, 16)};
}

// Which of sixteen keys, the first at `key`, a query at `place` sees.
inline __mmask16 seen(const Call &call, int64_t place, int64_t key) {
  int64_t end = std::clamp<int64_t>(place + 1 - key, 0, 16);
  int64_t start = call.window ? std::clamp<int64_t>(place + 1 - call.window - key, 0, 16) : 0;
  return __mmask16((uint32_t(1) << end) - 1) & __mmask16(~((uint32_t(1) << start) - 1));
}

inline __m512 scaled(const Call &call, __m512 score) {
  score = _mm512_mul_ps(score, _mm512_set1_ps(call.scale));
  if (call.cap > 0.0f)
    score = _mm512_mul_ps(tanh_of(_mm512_mul_ps(score, _mm512_set1_ps(1.0f / call.cap))), _mm512_set1_ps(call.cap));
  return score;
}

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

void forward_unit(const Call &call, const Unit &unit, int64_t kv, bf16 *out, int64_t out_stride, float *lse) {
  int64_t size = call.size, padded = up(unit.keys, 16), groups = call.heads / call.kv_heads;
  scratch.reserve(size_t(padded) * size * 4 + size_t(kRows) * (padded * 6 + size * 4) + 1024);
  pair *keys = scratch.take<pair>(padded * size / 2), *values = scratch.take<pair>(padded * size / 2);
  float *scores = scratch.take<float>(kRows * padded), *result = scratch.take<float>(kRows * size);
  bf16 *weights = scratch.take<bf16>(kRows * padded);
  columns_of(call, unit, call.k + kv * size, call.k_stride, padded, keys);
  rows_of(call, unit, call.v + kv * size, call.v_stride, padded, values);
  for (int64_t head = kv * groups; head < (kv + 1) * groups; head++)
    for (int64_t start = 0; start < unit.queries; start += kRows) {
      int64_t rows = std::min(kRows, unit.queries - start), first = unit.first + start;
      const int64_t *places = call.places + first;
      Span span = span_of(call, places, rows);
      const pair *q = reinterpret_cast<const pair *>(call.q + first * call.q_stride + head * size);
      product(q, call.q_stride / 2, 1, keys + span.from, padded, size / 2, scores, padded, rows, span.count, false);
      float inverse[kRows];
      for (int64_t m = 0; m < rows; m++) {
        float *line = scores + m * padded;
        __m512 top = _mm512_set1_ps(-INFINITY);
        for (int64_t n = 0; n < span.count; n += 16) {
          __m512 score = scaled(call, _mm512_loadu_ps(line + n));
          score = _mm512_mask_blend_ps(seen(call, places[m], span.from + n), _mm512_set1_ps(-INFINITY), score);
          _mm512_storeu_ps(line + n, score);
          top = _mm512_max_ps(top, score);
        }
        float peak = _mm512_reduce_max_ps(top);
        __m512 shift = _mm512_set1_ps(peak * kLog2E), total = _mm512_setzero_ps();
        for (int64_t n = 0; n < span.count; n += 16) {
          __mmask16 mask = seen(call, places[m], span.from + n);
          __m512 power = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(line + n), _mm512_set1_ps(kLog2E), shift));
          power = _mm512_maskz_mov_ps(mask, power);
          total = _mm512_add_ps(total, power);
          _mm256_storeu_si256(reinterpret_cast<__m256i *>(weights + m * padded + n), to_bf16(power));
        }
        float sum = _mm512_reduce_add_ps(total);
        inverse[m] = 1.0f / sum;
        lse[(first + m) * call.heads + head] = peak + std::log(sum);
      }
      product(reinterpret_cast<const pair *>(weights), padded / 2, 1, values + span.from / 2 * size, size,
              span.count / 2, result, size, rows, size, false);
      for (int64_t m = 0; m < rows; m++)
        for (int64_t d = 0; d < size; d += 16)
          _mm256_storeu_si256(
              reinterpret_cast<__m256i *>(out + (first + m) * out_stride + head * size + d),
              to_bf16(_mm512_mul_ps(_mm512_loadu_ps(result + m * size + d), _mm512_set1_ps(inverse[m]))));
    }
}

struct Back {
  const bf16 *out, *grad;
  int64_t out_stride, grad_stride;
  const float *lse;
  bf16 *dq, *dk, *dv;
  int64_t dq_stride, dk_stride, dv_stride;
};

// Pairs of rows of [rows, size]: to[rows / 2 rounded up][size].
void pairs_of_rows(const bf16 *x, int64_t stride, int64_t rows, int64_t size, pair *to) {
  for (int64_t m = 0; m < rows; m += 2)
    interleave(x + m * stride, m + 1 < rows ? x + (m + 1) * stride : nullptr, size, to + m / 2 * size);
}

// Adds what a unit gives to the gradients of its chain's keys and values, [keys, size] each; writes its queries'.
void backward_unit(const Call &call, const Back &back, const Unit &unit, int64_t kv, float *dk_chain, float *dv_chain) {
  int64_t size = call.size, padded = up(unit.keys, 16), groups = call.heads / call.kv_heads;
  pair *key_columns = scratch.take<pair>(padded * size / 2), *value_columns = scratch.take<pair>(padded * size / 2);
  pair *key_rows = scratch.take<pair>(padded * size / 2);
  float *scores = scratch.take<float>(kRows * padded), *slopes = scratch.take<float>(kRows * padded);
  bf16 *weights = scratch.take<bf16>(kRows * padded), *changes = scratch.take<bf16>(kRows * padded);
  pair *weight_pairs = scratch.take<pair>(kRows / 2 * padded), *change_pairs = scratch.take<pair>(kRows / 2 * padded);
  pair *grad_pairs = scratch.take<pair>(kRows / 2 * size), *query_pairs = scratch.take<pair>(kRows / 2 * size);
  float *result = scratch.take<float>(kRows * size);
  columns_of(call, unit, call.k + kv * size, call.k_stride, padded, key_columns);
  columns_of(call, unit, call.v + kv * size, call.v_stride, padded, value_columns);
  rows_of(call, unit, call.k + kv * size, call.k_stride, padded, key_rows);
  for (int64_t head = kv * groups; head < (kv + 1) * groups; head++)
    for (int64_t start = 0; start < unit.queries; start += kRows) {
      int64_t rows = std::min(kRows, unit.queries - start), first = unit.first + start;
      const int64_t *places = call.places + first;
      Span span = span_of(call, places, rows);
      const bf16 *q = call.q + first * call.q_stride + head * size;
      const bf16 *grad = back.grad + first * back.grad_stride + head * size;
      const bf16 *answer = back.out + first * back.out_stride + head * size;
      product(reinterpret_cast<const pair *>(q), call.q_stride / 2, 1, key_columns + span.from, padded, size / 2,
              scores, padded, rows, span.count, false);
      product(reinterpret_cast<const pair *>(grad), back.grad_stride / 2, 1, value_columns + span.from, padded,
              size / 2, slopes, padded, rows, span.count, false);
      for (int64_t m = 0; m < rows; m++) {
        __m512 dot = _mm512_setzero_ps();
        for (int64_t d = 0; d < size; d += 16)
          dot = _mm512_fmadd_ps(
              to_float(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(grad + m * back.grad_stride + d))),
              to_float(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(answer + m * back.out_stride + d))), dot);
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot));
        __m512 shift = _mm512_set1_ps(back.lse[(first + m) * call.heads + head] * kLog2E);
        for (int64_t n = 0; n < span.count; n += 16) {
          __mmask16 mask = seen(call, places[m], span.from + n);
          __m512 score = scaled(call, _mm512_loadu_ps(scores + m * padded + n));
          __m512 power = exp2_of(_mm512_fmsub_ps(score, _mm512_set1_ps(kLog2E), shift));
          power = _mm512_maskz_mov_ps(mask, power);
          __m512 change = _mm512_mul_ps(power, _mm512_sub_ps(_mm512_loadu_ps(slopes + m * padded + n), mean));
          if (call.cap > 0.0f) {
            __m512 part = _mm512_mul_ps(score, _mm512_set1_ps(1.0f / call.cap));
            change = _mm512_mul_ps(change, _mm512_fnmadd_ps(part, part, _mm512_set1_ps(1.0f)));
          }
          change = _mm512_maskz_mov_ps(mask, change);
          _mm256_storeu_si256(reinterpret_cast<__m256i *>(weights + m * padded + n), to_bf16(power));
          _mm256_storeu_si256(reinterpret_cast<__m256i *>(changes + m * padded + n), to_bf16(change));
        }
      }
      product(reinterpret_cast<const pair *>(changes), padded / 2, 1, key_rows + span.from / 2 * size, size,
              span.count / 2, result, size, rows, size, false);
      for (int64_t m = 0; m < rows; m++)
        for (int64_t d = 0; d < size; d += 16)
          _mm256_storeu_si256(
              reinterpret_cast<__m256i *>(back.dq + (first + m) * back.dq_stride + head * size + d),
              to_bf16(_mm512_mul_ps(_mm512_loadu_ps(result + m * size + d), _mm512_set1_ps(call.scale))));
      pairs_of_rows(weights, padded, rows, span.count, weight_pairs);
      pairs_of_rows(changes, padded, rows, span.count, change_pairs);
      pairs_of_rows(grad, back.grad_stride, rows, size, grad_pairs);
      pairs_of_rows(q, call.q_stride, rows, size, query_pairs);
      product(weight_pairs, 1, span.count, grad_pairs, size, (rows + 1) / 2, dv_chain + span.from * size, size,
              span.count, size, true);
      product(change_pairs, 1, span.count, query_pairs, size, (rows + 1) / 2, dk_chain + span.from * size, size,
              span.count, size, true);
    }
}

void store_rows(const float *x, int64_t rows, int64_t size, float factor, bf16 *to, int64_t stride) {
  for (int64_t m = 0; m < rows; m++)
    for (int64_t d = 0; d < size; d += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + m * stride + d),
                          to_bf16(_mm512_mul_ps(_mm512_loadu_ps(x + m * size + d), _mm512_set1_ps(factor))));
}

// All units of a group, whose tokens are `tokens` from `token` on.
void backward_group(const Call &call, const Back &back, const int64_t *group, int64_t kv) {
  int64_t first_unit = group[0], units = group[1], token = group[2], tokens = group[3], longest = group[4];
  int64_t size = call.size, padded = up(longest, 16);
  scratch.reserve(size_t(tokens) * size * 8 + size_t(padded) * size * (3 * 2 + 2 * 4) + size_t(kRows) * padded * 16 +
                  size_t(kRows) * size * 8 + 4096);
  float *dk = scratch.take<float>(tokens * size), *dv = scratch.take<float>(tokens * size);
  float *dk_chain = scratch.take<float>(padded * size), *dv_chain = scratch.take<float>(padded * size);
  std::memset(dk, 0, size_t(tokens) * size * 4);
  std::memset(dv, 0, size_t(tokens) * size * 4);
  size_t mark = scratch.used;
  for (int64_t n = first_unit; n < first_unit + units; n++) {
    Unit unit = unit_of(call, n);
    if (!unit.queries) continue;
    scratch.used = mark;
    std::memset(dk_chain, 0, size_t(up(unit.keys, 16)) * size * 4);
    std::memset(dv_chain, 0, size_t(up(unit.keys, 16)) * size * 4);
    backward_unit(call, back, unit, kv, dk_chain, dv_chain);
    int64_t at = 0;
    for (int64_t r = 0; r < unit.ranges; r++) {
      const int64_t *range = call.ranges + 2 * (unit.ranges_at + r);
      float *to_k = dk + (range[0] - token) * size, *to_v = dv + (range[0] - token) * size;
      for (int64_t i = 0; i < range[1] * size; i++) {
        to_k[i] += dk_chain[at * size + i];
        to_v[i] += dv_chain[at * size + i];
      }
      at += range[1];
    }
  }
  store_rows(dk, tokens, size, call.scale, back.dk + token * back.dk_stride + kv * size, back.dk_stride);
  store_rows(dv, tokens, size, 1.0f, back.dv + token * back.dv_stride + kv * size, back.dv_stride);
}

}  // namespace

extern "C" {

int luthier_has_attention() { return 1; }

void luthier_attention(const Call *call, int64_t units, void *out, int64_t out_stride, float *lse) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t item = 0; item < units * call->kv_heads; item++) {
    Unit unit = unit_of(*call, item / call->kv_heads);
    if (unit.queries)
      forward_unit(*call, unit, item % call->kv_heads, static_cast<bf16 *>(out), out_stride, lse);
  }
}

// `groups`, per group: first unit, units, first token, tokens, keys of the longest chain.
void luthier_attention_back(const Call *call, const Back *back, const int64_t *groups, int64_t count) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t item = 0; item < count * call->kv_heads; item++)
    backward_group(*call, *back, groups + 5 * (item / call->kv_heads), item % call->kv_heads);
}
}

#else

extern "C" {
int luthier_has_attention() { return 0; }
void luthier_attention(const void *, int64_t, void *, int64_t, float *) {}
void luthier_attention_back(const void *, const void *, const int64_t *, int64_t) {}
}

#endif
