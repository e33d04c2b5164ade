// Row-wise kernels of a transformer block: normalisation, rotary positions, gated activations, softmax loss.
//
// Each works in float32 on rows of float32 or bfloat16, rounds once when it stores, and gives each row to one thread,
// so that results do not depend on the number of threads. Rows may lie in wider buffers (`*_stride`, in elements).
// Plain versions of all of them, with the same arguments, stand in `plain.py`.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct Bf16 {
  uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(Bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline void store(float *to, float value) { *to = value; }
inline void store(Bf16 *to, float value) {  // round to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  to->bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// exp by 2^n * p(r), |r| <= ln 2 / 2: relative error below 2e-7, and plain arithmetic that compilers vectorise.
inline float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float n = std::nearbyint(x * 1.44269504f);
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = (int32_t(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

inline float fast_tanh(float x) { return 1.0f - 2.0f / (fast_exp(2.0f * x) + 1.0f); }

// y = x / sqrt(mean(x^2) + eps) * w (Zhang & Sennrich 2019); the reciprocal root is kept for the backward.
// Each row holds `heads` vectors of `width` that are normalised on their own.
template <typename T>
void rms_norm(const T *x, int64_t x_stride, const float *w, T *y, int64_t y_stride, float *scale, int64_t rows,
              int64_t heads, int64_t width, float eps) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows * heads; row++) {
    const T *from = x + row / heads * x_stride + row % heads * width;
    T *to = y + row / heads * y_stride + row % heads * width;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
      float value = load(from[i]);
      sum += value * value;
    }
    float r = 1.0f / std::sqrt(sum / float(width) + eps);
    scale[row] = r;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) store(&to[i], load(from[i]) * r * w[i]);
  }
}

// dx = (add) + r * (dy w - x r^2 mean(dy w x)); y is written once more for the gradients of what read it.
template <typename T>
void rms_norm_back(const T *dy, int64_t dy_stride, const T *x, int64_t x_stride, const float *w, const float *scale,
                   const T *add, int64_t add_stride, T *dx, int64_t dx_stride, T *y, int64_t y_stride, int64_t rows,
                   int64_t heads, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows * heads; row++) {
    int64_t line = row / heads, start = row % heads * width;
    const T *d = dy + line * dy_stride + start, *from = x + line * x_stride + start;
    const T *plus = add ? add + line * add_stride + start : nullptr;
    T *to = dx + line * dx_stride + start;
    float r = scale[row], sum = 0.0f;
    if (y) {
      T *again = y + line * y_stride + start;
#pragma omp simd
      for (int64_t i = 0; i < width; i++) store(&again[i], load(from[i]) * r * w[i]);
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += load(d[i]) * w[i] * load(from[i]);
    float shared = sum / float(width) * r * r;
    if (plus) {
#pragma omp simd
      for (int64_t i = 0; i < width; i++)
        store(&to[i], load(plus[i]) + r * (load(d[i]) * w[i] - load(from[i]) * shared));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; i++) store(&to[i], r * (load(d[i]) * w[i] - load(from[i]) * shared));
    }
  }
}

// dw[i] = sum over rows of dy x r, in blocks of rows that are added in order.
template <typename T>
void rms_norm_weight_back(const T *dy, int64_t dy_stride, const T *x, int64_t x_stride, const float *scale, float *dw,
                          float *scratch, int64_t blocks, int64_t rows, int64_t heads, int64_t width) {
  int64_t size = (rows + blocks - 1) / blocks;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; block++) {
    float *sum = scratch + block * width;
    std::fill(sum, sum + width, 0.0f);
    for (int64_t row = block * size; row < std::min(rows, (block + 1) * size); row++)
      for (int64_t head = 0; head < heads; head++) {
        const T *d = dy + row * dy_stride + head * width, *from = x + row * x_stride + head * width;
        float r = scale[row * heads + head];
#pragma omp simd
        for (int64_t i = 0; i < width; i++) sum[i] += load(d[i]) * load(from[i]) * r;
      }
  }
  for (int64_t block = 0; block < blocks; block++)
#pragma omp simd
    for (int64_t i = 0; i < width; i++) dw[i] += scratch[block * width + i];
}

// Rotates halves (x1, x2) -> (x1 c - x2 s, x2 c + x1 s) of the first 2 * half columns of each head (Su et al. 2021);
// `sign` -1 turns back, which is the gradient.
template <typename T>
void rotate(T *x, int64_t stride, const float *cos, const float *sin, int64_t rows, int64_t heads, int64_t size,
            int64_t half, float sign) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const float *c = cos + row * half, *s = sin + row * half;
    for (int64_t head = 0; head < heads; head++) {
      T *a = x + row * stride + head * size, *b = a + half;
#pragma omp simd
      for (int64_t i = 0; i < half; i++) {
        float first = load(a[i]), second = load(b[i]);
        store(&a[i], first * c[i] - second * (s[i] * sign));
        store(&b[i], second * c[i] + first * (s[i] * sign));
      }
    }
  }
}

struct Silu {  // x sigmoid(x) and its derivative
  static inline void of(float x, float &y, float &dy) {
    float sigmoid = 1.0f / (1.0f + fast_exp(-x));
    y = x * sigmoid;
    dy = sigmoid * (1.0f + x * (1.0f - sigmoid));
  }
};

struct GeluTanh {  // the tanh form of GELU (Hendrycks & Gimpel 2016)
  static inline void of(float x, float &y, float &dy) {
    float square = x * x;
    float t = fast_tanh(0.7978845608f * x * (1.0f + 0.044715f * square));
    y = 0.5f * x * (1.0f + t);
    dy = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * square);
  }
};

// m = act(g) u, where a row holds g and then u (Shazeer 2020).
template <typename Act, typename T>
void gate(const T *gu, int64_t gu_stride, T *m, int64_t m_stride, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const T *g = gu + row * gu_stride, *u = g + width;
    T *to = m + row * m_stride;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      float y, unused;
      Act::of(load(g[i]), y, unused);
      store(&to[i], y * load(u[i]));
    }
  }
}

// Turns (g, u) into (dg, du) in place, and dm into m, since both are needed next and nothing else is.
template <typename Act, typename T>
void gate_back(T *gu, int64_t gu_stride, T *dm, int64_t dm_stride, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    T *g = gu + row * gu_stride, *u = g + width, *d = dm + row * dm_stride;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      float y, slope, up = load(u[i]), grad = load(d[i]);
      Act::of(load(g[i]), y, slope);
      store(&g[i], grad * up * slope);
      store(&u[i], grad * y);
      store(&d[i], y * up);
    }
  }
}

// The loss -log softmax(z)[target] of one row, and, if wanted, its gradient softmax(z) - onehot by the logits before the
// cap, written to `to`, which may be the memory of `z`.
template <typename S, typename T>
inline float softmax_row(const S *z, T *to, int64_t target, int64_t width, float cap, bool wants_grad) {
  float top = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < width; i++) {
    float value = load(z[i]);
    top = value > top ? value : top;
  }
#pragma omp simd reduction(+ : sum)  // NaN as soon as one value is NaN or infinity, or all are -infinity
  for (int64_t i = 0; i < width; i++) sum += fast_exp(load(z[i]) - top);
  float at_target = load(z[target]), loss = top + std::log(sum) - at_target;
  if (!wants_grad) return loss;
  float inverse = 1.0f / sum, p_target = fast_exp(at_target - top) * inverse - 1.0f;
  if (cap > 0.0f) {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      float value = load(z[i]);
      store(&to[i], fast_exp(value - top) * inverse * (1.0f - value * value / (cap * cap)));
    }
    p_target *= 1.0f - at_target * at_target / (cap * cap);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; i++) store(&to[i], fast_exp(load(z[i]) - top) * inverse);
  }
  store(&to[target], p_target);
  return loss;
}

// Losses of all rows, and the logits turned into their gradient in place. `cap` > 0: the logits are cap * tanh(x / cap)
// (Gemma 2, Riviere et al. 2024), which are held in float32, a row per thread.
template <typename T>
void softmax_loss(T *x, const int64_t *targets, float *losses, int64_t rows, int64_t width, float cap, int wants_grad) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t row = 0; row < rows; row++) {
    T *line = x + row * width;
    if (cap > 0.0f) {
      thread_local std::vector<float> capped;
      capped.resize(size_t(width));
      float *z = capped.data();
#pragma omp simd
      for (int64_t i = 0; i < width; i++) z[i] = cap * fast_tanh(load(line[i]) / cap);
      losses[row] = softmax_row(z, line, targets[row], width, cap, wants_grad);
    } else {
      losses[row] = softmax_row(line, line, targets[row], width, cap, wants_grad);
    }
  }
}

}  // namespace

#define BOTH(CALL_F32, CALL_BF16) \
  if (is_bf16)                    \
    CALL_BF16;                    \
  else                            \
    CALL_F32;

typedef const void *In;
typedef void *Out;
template <typename T> inline const T *in(In p) { return static_cast<const T *>(p); }
template <typename T> inline T *out(Out p) { return static_cast<T *>(p); }

extern "C" {

void luthier_rms_norm(int is_bf16, In x, int64_t xs, const float *w, Out y, int64_t ys, float *scale, int64_t rows,
                      int64_t heads, int64_t width, float eps) {
  BOTH(rms_norm(in<float>(x), xs, w, out<float>(y), ys, scale, rows, heads, width, eps),
       rms_norm(in<Bf16>(x), xs, w, out<Bf16>(y), ys, scale, rows, heads, width, eps))
}

void luthier_rms_norm_back(int is_bf16, In dy, int64_t dys, In x, int64_t xs, const float *w, const float *scale,
                           In add, int64_t adds, Out dx, int64_t dxs, Out y, int64_t ys, int64_t rows, int64_t heads,
                           int64_t width) {
  BOTH(rms_norm_back(in<float>(dy), dys, in<float>(x), xs, w, scale, in<float>(add), adds, out<float>(dx), dxs,
                     out<float>(y), ys, rows, heads, width),
       rms_norm_back(in<Bf16>(dy), dys, in<Bf16>(x), xs, w, scale, in<Bf16>(add), adds, out<Bf16>(dx), dxs,
                     out<Bf16>(y), ys, rows, heads, width))
}

void luthier_rms_norm_weight_back(int is_bf16, In dy, int64_t dys, In x, int64_t xs, const float *scale, float *dw,
                                  float *scratch, int64_t blocks, int64_t rows, int64_t heads, int64_t width) {
  BOTH(rms_norm_weight_back(in<float>(dy), dys, in<float>(x), xs, scale, dw, scratch, blocks, rows, heads, width),
       rms_norm_weight_back(in<Bf16>(dy), dys, in<Bf16>(x), xs, scale, dw, scratch, blocks, rows, heads, width))
}

void luthier_rotate(int is_bf16, Out x, int64_t stride, const float *cos, const float *sin, int64_t rows,
                    int64_t heads, int64_t size, int64_t half, float sign) {
  BOTH(rotate(out<float>(x), stride, cos, sin, rows, heads, size, half, sign),
       rotate(out<Bf16>(x), stride, cos, sin, rows, heads, size, half, sign))
}

void luthier_gate(int is_bf16, int is_gelu, In gu, int64_t gus, Out m, int64_t ms, int64_t rows, int64_t width) {
  if (is_gelu) {
    BOTH((gate<GeluTanh>(in<float>(gu), gus, out<float>(m), ms, rows, width)),
         (gate<GeluTanh>(in<Bf16>(gu), gus, out<Bf16>(m), ms, rows, width)))
  } else {
    BOTH((gate<Silu>(in<float>(gu), gus, out<float>(m), ms, rows, width)),
         (gate<Silu>(in<Bf16>(gu), gus, out<Bf16>(m), ms, rows, width)))
  }
}

void luthier_gate_back(int is_bf16, int is_gelu, Out gu, int64_t gus, Out dm, int64_t dms, int64_t rows,
                       int64_t width) {
  if (is_gelu) {
    BOTH((gate_back<GeluTanh>(out<float>(gu), gus, out<float>(dm), dms, rows, width)),
         (gate_back<GeluTanh>(out<Bf16>(gu), gus, out<Bf16>(dm), dms, rows, width)))
  } else {
    BOTH((gate_back<Silu>(out<float>(gu), gus, out<float>(dm), dms, rows, width)),
         (gate_back<Silu>(out<Bf16>(gu), gus, out<Bf16>(dm), dms, rows, width)))
  }
}

void luthier_softmax_loss(int is_bf16, Out x, const int64_t *targets, float *losses, int64_t rows, int64_t width,
                          float cap, int wants_grad) {
  BOTH(softmax_loss(out<float>(x), targets, losses, rows, width, cap, wants_grad),
       softmax_loss(out<Bf16>(x), targets, losses, rows, width, cap, wants_grad))
}
}
