#include "engine/cache/paged_latent_cache.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/check.h"

namespace tessera {
namespace {

using kernels::DeviceBuffer;
using kernels::StreamView;

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

LatentShard two_layers() {
  return LatentShard::full(
      {.latent_widths = {8, 4}, .rope_width = 2, .dtype = kernels::DType::kFloat32});
}

LatentColumns columns(int64_t begin, int64_t count) {
  return {.ranges = {{{begin, count}}}};
}

TEST(PagedLatentCacheTest, ViewsOfTwoLayersShareTheBlockStride) {
  SmallDevice device(1 << 20);
  const PagedLatentCache cache = PagedLatentCache::create(device, two_layers(), 3).value();
  const auto first = cache.layer_view(0);
  const auto second = cache.layer_view(1);
  EXPECT_EQ(cache.num_bytes(), 3 * 64 * (10 + 6) * 4);
  EXPECT_EQ(first.block_stride_bytes, 64 * (10 + 6) * 4);
  EXPECT_EQ(second.block_stride_bytes, first.block_stride_bytes);
  EXPECT_EQ(static_cast<char*>(second.base) - static_cast<char*>(first.base), 64 * 10 * 4);
  EXPECT_EQ(first.latent_width, 8);
  EXPECT_EQ(second.latent_width, 4);
  EXPECT_EQ(second.rope_width, 2);
  EXPECT_EQ(second.num_blocks, 3);
}

TEST(PagedLatentCacheTest, CopiesAllLayersOfOneBlock) {
  SmallDevice device(1 << 20);
  PagedLatentCache cache = PagedLatentCache::create(device, two_layers(), 3).value();
  const int64_t block_bytes = cache.shard().block_bytes();
  auto* memory = static_cast<char*>(cache.layer_view(0).base);
  for (int64_t i = 0; i < 3 * block_bytes; ++i) {
    memory[i] = static_cast<char>('a' + i / block_bytes);
  }
  cache.copy_block(0, 2, {});
  EXPECT_EQ(memory[2 * block_bytes], 'a');
  EXPECT_EQ(memory[3 * block_bytes - 1], 'a');
  EXPECT_EQ(memory[block_bytes], 'b');
  EXPECT_EQ(memory[2 * block_bytes - 1], 'b');
}

TEST(PagedLatentCacheTest, ImagesOfABlockLieOneAfterAnother) {
  SmallDevice device(1 << 20);
  const LatentLayout layout{
      .latent_widths = {8, 4}, .rope_width = 2, .dtype = kernels::DType::kFloat32};
  const std::vector<LatentShard> images = {LatentShard(layout, {columns(0, 6), columns(0, 1)}),
                                           LatentShard(layout, {columns(6, 2), columns(1, 3)})};
  PagedLatentCache cache = PagedLatentCache::create(device, images, 3).value();
  EXPECT_EQ(cache.num_images(), 2);
  EXPECT_EQ(cache.image_bytes(0), 64 * (8 + 3) * 4);
  EXPECT_EQ(cache.image_bytes(1), 64 * (4 + 5) * 4);
  EXPECT_EQ(cache.block_bytes(), 64 * 20 * 4);
  auto* base = static_cast<char*>(cache.image_address(0, 0));
  EXPECT_EQ(cache.image_address(2, 1), base + 2 * 64 * 20 * 4 + 64 * 11 * 4);
  const auto view = cache.layer_view(1, 1);
  EXPECT_EQ(view.base, base + 64 * 11 * 4 + 64 * 4 * 4);
  EXPECT_EQ(view.block_stride_bytes, 64 * 20 * 4);
  EXPECT_EQ(view.latent_width, 3);
  const auto views = cache.views();
  ASSERT_EQ(views.size(), 4U);
  EXPECT_EQ(views[3].cache.base, view.base);  // layer 1, image 1
  EXPECT_EQ(views[1].columns, columns(6, 2));
  base[64 * 20 * 4 - 1] = 'z';  // the last byte of block 0 is copied too
  cache.copy_block(0, 1, {});
  EXPECT_EQ(base[2 * 64 * 20 * 4 - 1], 'z');
}

TEST(PagedLatentCacheTest, ReportsMemoryThatIsNotThere) {
  SmallDevice device(1000);
  const auto cache = PagedLatentCache::create(device, two_layers(), 3);
  ASSERT_FALSE(cache.is_ok());
  EXPECT_EQ(cache.status().code(), StatusCode::kResourceExhausted);
}

TEST(PagedLatentCacheTest, RefusesImpossibleNumbersOfBlocks) {
  SmallDevice device(1 << 20);
  for (const int64_t num_blocks : {int64_t{-1}, int64_t{0}, int64_t{1} << 40}) {
    const auto cache = PagedLatentCache::create(device, two_layers(), num_blocks);
    ASSERT_FALSE(cache.is_ok());
    EXPECT_EQ(cache.status().code(), StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera
