// Quantised weights back to numbers: 8-bit integers with a scale for each row, and NF4 with scales that are quantised too.
//
// A number is one float32 product, level times scale, rounded once when it is stored; scales are made by sums and
// products that are exact or rounded once, so that the plain version in `dequantize.py` gives the same bits. Each row
// belongs to one thread. Rows of the output may lie in a wider buffer (`stride`, in elements).

#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kBlock = 64;  // weights of NF4 that share a scale

struct Bf16 {
  uint16_t bits;
};
inline void store(float *to, float value) { *to = value; }
inline void store(Bf16 *to, float value) {  // round to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  to->bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <typename T>
void int8(const int8_t *codes, const float *scales, T *out, int64_t stride, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const int8_t *from = codes + row * width;
    T *to = out + row * stride;
    float scale = scales[row];
#pragma omp simd
    for (int64_t i = 0; i < width; i++) store(&to[i], float(from[i]) * scale);
  }
}

// The first of two neighbouring weights lies in the lower half of their byte.
template <typename T>
inline void look_up(const uint8_t *codes, const T *levels, T *to, int64_t count) {
  for (int64_t i = 0; i + 1 < count; i += 2) {
    to[i] = levels[codes[i / 2] & 15];
    to[i + 1] = levels[codes[i / 2] >> 4];
  }
  if (count % 2) to[count - 1] = levels[codes[count / 2] & 15];
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)

inline void look_up_block(const uint8_t *codes, const Bf16 *levels, Bf16 *to) {
  __m512i table = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(levels)));
  const __m512i nibbles = _mm512_set1_epi32(0x000f000f);
  for (int64_t half = 0; half < 2; half++) {
    __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + 16 * half)));
    __m512i at = _mm512_and_si512(_mm512_or_si512(byte, _mm512_slli_epi32(byte, 12)), nibbles);
    _mm512_storeu_si512(to + 32 * half, _mm512_permutexvar_epi16(at, table));
  }
}

inline void look_up_block(const uint8_t *codes, const float *levels, float *to) {
  __m512 table = _mm512_loadu_ps(levels);
  const __m512i shifts = _mm512_set_epi32(4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
  for (int64_t part = 0; part < 4; part++) {
    __m128i byte = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes + 8 * part));
    __m512i twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(byte, byte));
    __m512i at = _mm512_srlv_epi32(twice, shifts);  // the permutation reads the lower four bits
    _mm512_storeu_ps(to + 16 * part, _mm512_permutexvar_ps(at, table));
  }
}

#else

template <typename T>
inline void look_up_block(const uint8_t *codes, const T *levels, T *to) {
  look_up(codes, levels, to, kBlock);
}

#endif

// A block's scale is mean + float8(code) * outer[group of 256 blocks]; the product is exact, since outer has few bits.
template <typename T>
void nf4(const uint8_t *codes, const uint8_t *scale_codes, const float *outer, float mean, const float *levels,
         const float *float8, T *out, int64_t stride, int64_t rows, int64_t width) {
  int64_t bytes = (width + 1) / 2, blocks = (width + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t block = 0; block < blocks; block++) {
      int64_t number = row * blocks + block;
      float scale = mean + float8[scale_codes[number]] * outer[number / 256];
      T scaled[16];
#pragma omp simd
      for (int i = 0; i < 16; i++) store(&scaled[i], levels[i] * scale);
      const uint8_t *from = codes + row * bytes + block * kBlock / 2;
      T *to = out + row * stride + block * kBlock;
      int64_t count = std::min(kBlock, width - block * kBlock);
      if (count == kBlock) {
        look_up_block(from, scaled, to);
      } else {
        look_up(from, scaled, to, count);
      }
    }
  }
}

}  // namespace

extern "C" {

void luthier_int8(int is_bf16, const int8_t *codes, const float *scales, void *out, int64_t stride, int64_t rows,
                  int64_t width) {
  if (is_bf16) {
    int8(codes, scales, static_cast<Bf16 *>(out), stride, rows, width);
  } else {
    int8(codes, scales, static_cast<float *>(out), stride, rows, width);
  }
}

void luthier_nf4(int is_bf16, const uint8_t *codes, const uint8_t *scale_codes, const float *outer, float mean,
                 const float *levels, const float *float8, void *out, int64_t stride, int64_t rows, int64_t width) {
  if (is_bf16) {
    nf4(codes, scale_codes, outer, mean, levels, float8, static_cast<Bf16 *>(out), stride, rows, width);
  } else {
    nf4(codes, scale_codes, outer, mean, levels, float8, static_cast<float *>(out), stride, rows, width);
  }
}
}
