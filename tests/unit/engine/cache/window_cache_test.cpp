#include "engine/cache/window_cache.h"

#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using kernels::DeviceBuffer;
using kernels::LatentWindow;
using kernels::StreamView;
using kernels::WindowRing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Host memory up to a limit.
class SmallDevice final : public kernels::Device {
 public:
  explicit SmallDevice(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  DeviceBuffer allocate(int64_t num_bytes) override {
    if (num_bytes > limit_bytes_) {
      throw DeviceError("out of memory");
    }
    memory_.assign(static_cast<size_t>(num_bytes), 0);
    return {this, memory_.data(), num_bytes};
  }
  void copy_from_host(void* to, const void* from, int64_t num_bytes, StreamView) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
  }
  void copy_to_host(void* to, const void* from, int64_t num_bytes, StreamView) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
  }
  void copy(void* to, const void* from, int64_t num_bytes, StreamView) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
  }
  void synchronize_blocking(StreamView) override {}
  [[nodiscard]] std::string description() const override { return "test"; }

 private:
  void deallocate(void*) noexcept override { memory_.clear(); }

  int64_t limit_bytes_;
  std::vector<char> memory_;
};

const LatentLayout kLayout{
    .latent_widths = {8, 8, 4}, .rope_width = 2, .dtype = kernels::DType::kFloat32};
const std::vector<bool> kSliced = {true, false, true};

TEST(WindowBlocksTest, AreThoseOfTheFirstAndTheLastTokens) {
  const LatentWindow window{.num_first = 4, .num_last = 65};
  EXPECT_THAT(window_blocks(window, 0), IsEmpty());
  EXPECT_THAT(window_blocks(window, 1), ElementsAre(0));
  EXPECT_THAT(window_blocks(window, 64), ElementsAre(0));
  EXPECT_THAT(window_blocks(window, 65), ElementsAre(0, 1));
  EXPECT_THAT(window_blocks(window, 192), ElementsAre(0, 1, 2));
  EXPECT_THAT(window_blocks(window, 193), ElementsAre(0, 2, 3));
  EXPECT_THAT(window_blocks(window, 640), ElementsAre(0, 8, 9));
}

TEST(WindowBlocksTest, OfOnePartAloneAreThatParts) {
  EXPECT_THAT(window_blocks({.num_first = 65, .num_last = 0}, 400), ElementsAre(0, 1));
  EXPECT_THAT(window_blocks({.num_first = 65, .num_last = 0}, 64), ElementsAre(0));
  EXPECT_THAT(window_blocks({.num_first = 0, .num_last = 1}, 129), ElementsAre(2));
  EXPECT_THAT(window_blocks({.num_first = 0, .num_last = 1}, 128), ElementsAre(1));
  EXPECT_THAT(window_blocks({.num_first = 0, .num_last = 1000}, 128), ElementsAre(0, 1));
}

TEST(WindowRingTest, KeepsEveryTokenThatALaterRowOfTheStepNeeds) {
  const LatentWindow window{.num_first = 3, .num_last = 5};
  for (const int64_t step_rows : {1, 4}) {
    const WindowRing ring = WindowRing::create(window, step_rows);
    std::vector<int64_t> token_of_row(static_cast<size_t>(ring.rows_per_sequence()), -1);
    for (int64_t begin = 0; begin < 60; begin += step_rows) {
      const int64_t end = begin + step_rows;
      for (int64_t position = begin; position < end; ++position) {
        ASSERT_TRUE(ring.is_kept(position, end));
        token_of_row.at(static_cast<size_t>(ring.row(position))) = position;
      }
      for (int64_t length = begin + 1; length <= end; ++length) {
        for (int64_t position = 0; position < length; ++position) {
          if (window.contains(position, length)) {
            EXPECT_EQ(token_of_row.at(static_cast<size_t>(ring.row(position))), position);
          }
        }
      }
    }
  }
}

TEST(WindowRingTest, TokensOfALongChunkThatAreKeptHaveRowsOfTheirOwn) {
  for (const int64_t num_last : {0, 1, 7}) {
    const WindowRing ring = WindowRing::create({.num_first = 3, .num_last = num_last}, 2);
    std::set<int64_t> rows;
    int64_t num_kept = 0;
    for (int64_t position = 0; position < 50; ++position) {
      if (ring.is_kept(position, 50)) {
        rows.insert(ring.row(position));
        ++num_kept;
      }
    }
    EXPECT_EQ(num_kept, ring.rows_per_sequence());
    EXPECT_EQ(static_cast<int64_t>(rows.size()), num_kept);
  }
}

TEST(WindowCacheTest, HasRowsOfAllColumnsWhereTheLayerIsSliced) {
  SmallDevice device(1 << 20);
  const WindowRing ring = WindowRing::create({.num_first = 4, .num_last = 16}, 3);
  const WindowCache cache =
      WindowCache::create(device, kLayout, kSliced, {.ring = ring, .num_rings = 5}).value();
  EXPECT_EQ(cache.first_slot(2), 2 * 22);
  EXPECT_EQ(WindowCache::ring_bytes(kLayout, kSliced, ring), 22 * (10 + 6) * 4);
  EXPECT_EQ(cache.num_bytes(), 2 * 64 * (10 + 6) * 4);  // 110 rows in whole blocks
  const auto first = cache.layer_view(0);
  const auto last = cache.layer_view(2);
  EXPECT_EQ(first.num_blocks, 2);
  EXPECT_EQ(first.block_stride_bytes, 64 * 10 * 4);
  EXPECT_EQ(first.latent_width, 8);
  EXPECT_EQ(last.latent_width, 4);
  EXPECT_EQ(last.rope_width, 2);
  EXPECT_EQ(static_cast<char*>(last.base) - static_cast<char*>(first.base), 2 * 64 * 10 * 4);
  EXPECT_EQ(cache.layer_view(1).num_blocks, 0);
  EXPECT_EQ(cache.layer_view(1).base, nullptr);
}

TEST(WindowCacheTest, CopiesAllLayersOfOneRing) {
  SmallDevice device(1 << 20);
  const WindowRing ring = WindowRing::create({.num_first = 1, .num_last = 2});
  WindowCache cache =
      WindowCache::create(device, kLayout, kSliced, {.ring = ring, .num_rings = 3}).value();
  const auto row = [&](int64_t layer, int64_t slot) {
    const auto view = cache.layer_view(layer);
    return static_cast<char*>(view.base) + slot * view.block_stride_bytes / 64;
  };
  for (const int64_t layer : {0, 2}) {
    for (int64_t slot = 0; slot < 9; ++slot) {
      std::memset(row(layer, slot),
                  static_cast<int>('a' + slot),
                  static_cast<size_t>(row(layer, slot + 1) - row(layer, slot)));
    }
  }
  cache.copy_ring(0, 2, {});
  for (const int64_t layer : {0, 2}) {
    EXPECT_EQ(*row(layer, 6), 'a');
    EXPECT_EQ(*(row(layer, 9) - 1), 'c');
    EXPECT_EQ(*(row(layer, 6) - 1), 'f');  // the ring before it is as it was
    EXPECT_EQ(*row(layer, 0), 'a');
  }
}

TEST(WindowCacheTest, OfLayersThatShareEverythingIsEmpty) {
  SmallDevice device(1 << 20);
  WindowCache cache =
      WindowCache::create(
          device,
          kLayout,
          {false, false, false},
          {.ring = WindowRing::create({.num_first = 0, .num_last = 2}), .num_rings = 2})
          .value();
  cache.copy_ring(0, 1, {});
  EXPECT_EQ(cache.layer_view(0).num_blocks, 0);
}

TEST(WindowCacheTest, ReportsWhatCannotBe) {
  SmallDevice device(1000);
  const WindowRing ring = WindowRing::create({.num_first = 4, .num_last = 16});
  const auto fault = [&](const WindowCacheSetup& setup) {
    return WindowCache::create(device, kLayout, kSliced, setup).status();
  };
  EXPECT_EQ(fault({.ring = ring, .num_rings = 2}).code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(fault({.ring = ring, .num_rings = 0}).message(), HasSubstr("num_rings is 0"));
  EXPECT_EQ(fault({.ring = ring, .num_rings = int64_t{1} << 40}).code(),
            StatusCode::kInvalidArgument);
  EXPECT_THAT(fault({.ring = {}, .num_rings = 2}).message(), HasSubstr("0 first and 0 last"));
  EXPECT_THAT(fault({.ring = {.window = ring.window, .ring_rows = 15}, .num_rings = 2}).message(),
              HasSubstr("16 last tokens in a ring of 15 rows"));
}

}  // namespace
}  // namespace tessera
