#include "engine/transport/checksum.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "engine/transport/checksum_rows.h"

namespace tessera {
namespace {

std::vector<char> random_bytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<char> bytes(count);
  for (char& byte : bytes) {
    byte = static_cast<char>(random());
  }
  return bytes;
}

uint64_t checksum_of(const std::vector<char>& bytes) {
  return image_checksum(bytes.data(), static_cast<int64_t>(bytes.size()));
}

TEST(ChecksumTest, EachSingleFlippedBitChangesIt) {
  for (const size_t size : {size_t{1}, size_t{5}, size_t{4096}, size_t{4099}, size_t{9000}}) {
    std::vector<char> bytes = random_bytes(size, 11);
    const uint64_t original = checksum_of(bytes);
    for (size_t bit = 0; bit < size * 8; ++bit) {
      const auto mask = static_cast<char>(1U << (bit % 8));
      bytes[bit / 8] ^= mask;
      ASSERT_NE(checksum_of(bytes), original) << "bit " << bit << " of " << size << " bytes";
      bytes[bit / 8] ^= mask;
    }
  }
}

TEST(ChecksumTest, ExchangedWordsChangeIt) {
  std::vector<uint32_t> words(3000);
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = static_cast<uint32_t>(i + 1);
  }
  const auto num_bytes = static_cast<int64_t>(words.size() * sizeof(uint32_t));
  const uint64_t original = image_checksum(words.data(), num_bytes);
  std::mt19937 random(5);
  std::uniform_int_distribution<size_t> any(0, words.size() - 1);
  for (int round = 0; round < 3000; ++round) {
    const size_t i = any(random);
    const size_t j = any(random);
    if (i == j) {
      continue;
    }
    std::swap(words[i], words[j]);
    ASSERT_NE(image_checksum(words.data(), num_bytes), original) << i << " and " << j;
    std::swap(words[i], words[j]);
  }
}

TEST(ChecksumTest, ShiftedAndExchangedRowsChangeIt) {
  for (const size_t row : {size_t{128}, size_t{576}, size_t{1152}, size_t{4096}}) {
    std::vector<char> bytes = random_bytes(row * 40, 7);
    const uint64_t original = checksum_of(bytes);
    std::vector<char> shifted = bytes;
    std::rotate(shifted.begin(), shifted.begin() + static_cast<ptrdiff_t>(row), shifted.end());
    EXPECT_NE(checksum_of(shifted), original);
    std::vector<char> exchanged = bytes;
    std::swap_ranges(exchanged.begin(),
                     exchanged.begin() + static_cast<ptrdiff_t>(row),
                     exchanged.begin() + static_cast<ptrdiff_t>(row * 17));
    EXPECT_NE(checksum_of(exchanged), original);
    std::vector<char> stale = bytes;
    std::memset(stale.data() + (row * 3), 0, row);
    EXPECT_NE(checksum_of(stale), original);
  }
}

TEST(ChecksumTest, LengthChangesItThoughPaddingIsZero) {
  const std::vector<char> zeros(5000);
  EXPECT_NE(image_checksum(zeros.data(), 4999), image_checksum(zeros.data(), 5000));
  EXPECT_NE(image_checksum(zeros.data(), 4096), image_checksum(zeros.data(), 4097));
}

TEST(ChecksumTest, CopyGivesTheBytesAndTheirChecksum) {
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{4097}, size_t{100003}}) {
    const std::vector<char> bytes = random_bytes(size + 1, 3);
    std::vector<char> copy(size + 2, 'x');
    const char* source = bytes.data() + 1;  // not aligned
    const uint64_t checksum =
        copy_with_checksum(copy.data() + 1, source, static_cast<int64_t>(size));
    EXPECT_EQ(checksum, image_checksum(source, static_cast<int64_t>(size)));
    EXPECT_EQ(std::memcmp(copy.data() + 1, source, size), 0);
    EXPECT_EQ(copy.front(), 'x');
    EXPECT_EQ(copy.back(), 'x');
  }
}

// Both ends of a link must agree, whatever their processors have.
TEST(ChecksumTest, AllLoopsGiveTheSameSumsAndCopies) {
  const RowLoops& best = best_row_loops();
  const RowLoops& portable = portable_row_loops();
  std::vector<char> bytes = random_bytes(kChecksumRowBytes + 64, 19);
  std::fill(bytes.begin() + 100, bytes.begin() + 300, '\xff');
  for (size_t shift = 0; shift < 64; ++shift) {
    const char* row = bytes.data() + shift;
    EXPECT_EQ(best.sum(row), portable.sum(row)) << shift;
    for (const RowLoops* loops : {&best, &portable}) {
      std::vector<char> copy(kChecksumRowBytes + 2, 'x');
      EXPECT_EQ(loops->copy(copy.data() + 1, row), portable.sum(row)) << shift;
      EXPECT_EQ(std::memcmp(copy.data() + 1, row, kChecksumRowBytes), 0) << shift;
      EXPECT_EQ(copy.front(), 'x');
      EXPECT_EQ(copy.back(), 'x');
    }
    alignas(kStreamAlignment) std::array<char, kChecksumRowBytes> streamed{};
    EXPECT_EQ(best.stream(streamed.data(), row), portable.sum(row)) << shift;
    order_stores();
    EXPECT_EQ(std::memcmp(streamed.data(), row, kChecksumRowBytes), 0) << shift;
  }
}

// Releases of different age may speak to each other: the formula stays.
TEST(ChecksumTest, ItIsTheFormulaOfTheHeader) {
  const auto mix = [](uint64_t value) {
    value += 0x9e3779b97f4a7c15ULL;
    value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
    return value ^ (value >> 31U);
  };
  std::vector<char> bytes = random_bytes(3 * kChecksumRowBytes + 5, 23);
  uint64_t expected = bytes.size() * 0xd6e8feb86659fd93ULL;
  std::vector<char> padded = bytes;
  padded.resize(4 * kChecksumRowBytes);
  for (size_t i = 0; i < padded.size() / sizeof(uint32_t); ++i) {
    uint32_t word = 0;
    std::memcpy(&word, padded.data() + (i * sizeof(word)), sizeof(word));
    const uint64_t factor = static_cast<uint32_t>(mix(i % 1024) >> 32U) | 1U;
    expected += word * factor * (mix(~uint64_t{i / 1024}) | 1U);
  }
  EXPECT_EQ(checksum_of(bytes), expected);
}

}  // namespace
}  // namespace tessera
