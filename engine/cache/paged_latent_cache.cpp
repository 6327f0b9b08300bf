#include "engine/cache/paged_latent_cache.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();

int64_t block_bytes_of(const std::vector<LatentShard>& images) {
  return std::accumulate(
      images.begin(), images.end(), int64_t{0}, [](int64_t sum, const auto& image) {
        return sum + image.block_bytes();
      });
}

}  // namespace

Result<PagedLatentCache> PagedLatentCache::create(kernels::Device& device,
                                                  std::vector<LatentShard> images,
                                                  int64_t num_blocks) {
  TESSERA_CHECK(!images.empty(), "a cache block has at least one image");
  if (num_blocks < 1 || num_blocks > kMaxBlocks) {
    return invalid_argument(str_cat("num_blocks is ", num_blocks, ", expected 1 to ", kMaxBlocks));
  }
  const int64_t num_bytes = num_blocks * block_bytes_of(images);
  try {
    kernels::DeviceBuffer memory = device.allocate(num_bytes);
    return PagedLatentCache(device, std::move(images), num_blocks, std::move(memory));
  } catch (const DeviceError& error) {
    return resource_exhausted(str_cat(
        "the latent cache of ", num_blocks, " blocks needs ", num_bytes, " bytes: ", error.what()));
  }
}

Result<PagedLatentCache> PagedLatentCache::create(kernels::Device& device,
                                                  LatentShard shard,
                                                  int64_t num_blocks) {
  return create(device, std::vector<LatentShard>{std::move(shard)}, num_blocks);
}

PagedLatentCache::PagedLatentCache(kernels::Device& device,
                                   std::vector<LatentShard> images,
                                   int64_t num_blocks,
                                   kernels::DeviceBuffer memory)
    : device_(&device),
      images_(std::move(images)),
      image_offsets_{0},
      num_blocks_(num_blocks),
      memory_(std::move(memory)) {
  for (const LatentShard& image : images_) {
    TESSERA_CHECK(image.num_layers() == images_[0].num_layers(), "images of the same layers");
    image_offsets_.push_back(image_offsets_.back() + image.block_bytes());
  }
}

kernels::LatentCacheView PagedLatentCache::layer_view(int64_t layer, int64_t image) const {
  TESSERA_CHECK(image >= 0 && image < num_images(), "no such image in the cache");
  const LatentShard& columns = shard(image);
  TESSERA_CHECK(layer >= 0 && layer < columns.num_layers(), "no such layer in the cache");
  return {.base = static_cast<char*>(image_address(0, image)) + columns.layer_offset_bytes(layer),
          .block_stride_bytes = block_bytes(),
          .num_blocks = num_blocks_,
          .latent_width = columns.latent_width(layer),
          .rope_width = columns.rope_width(),
          .dtype = columns.dtype()};
}

std::vector<LatentImageView> PagedLatentCache::views() const {
  std::vector<LatentImageView> views;
  auto* const probes = static_cast<double*>(probes_.data());
  for (int64_t layer = 0; layer < shard().num_layers(); ++layer) {
    for (int64_t image = 0; image < num_images(); ++image) {
      views.push_back({.cache = layer_view(layer, image),
                       .columns = shard(image).columns(layer),
                       .probes = probes == nullptr ? nullptr : probes + image,
                       .probe_stride = num_images()});
    }
  }
  return views;
}

void* PagedLatentCache::image_address(int64_t block, int64_t image) const {
  TESSERA_CHECK(block >= 0 && block < num_blocks_ && image >= 0 && image < num_images(),
                "no such image of a block");
  return address(block) + image_offsets_[static_cast<size_t>(image)];
}

void PagedLatentCache::copy_block(int32_t source, int32_t destination, kernels::StreamView stream) {
  TESSERA_CHECK(source >= 0 && source < num_blocks_ && destination >= 0 &&
                    destination < num_blocks_ && source != destination,
                "copy_block: no such pair of blocks");
  device_->copy(address(destination), address(source), block_bytes(), stream);
  if (probes_.data() != nullptr) {
    const auto num_bytes = static_cast<int64_t>(sizeof(double)) * kBlockTokens * num_images();
    device_->copy(probe_address(destination), probe_address(source), num_bytes, stream);
  }
}

Status PagedLatentCache::keep_probes() {
  const auto num_bytes =
      static_cast<int64_t>(sizeof(double)) * num_blocks_ * kBlockTokens * num_images();
  try {
    probes_ = device_->allocate(num_bytes);
  } catch (const DeviceError& error) {
    return resource_exhausted(
        str_cat("the cache's probes need ", num_bytes, " bytes: ", error.what()));
  }
  return Status::ok();
}

std::vector<double> PagedLatentCache::probes_blocking(std::span<const int32_t> block_ids,
                                                      int64_t begin,
                                                      int64_t end) const {
  if (probes_.data() == nullptr) {
    return {};
  }
  TESSERA_CHECK(begin >= 0 && end <= static_cast<int64_t>(block_ids.size()) * kBlockTokens,
                "probes of tokens without a block");
  std::vector<double> slots(static_cast<size_t>(std::max<int64_t>(0, end - begin) * num_images()));
  for (int64_t token = begin; token < end;) {
    const int64_t offset = token % kBlockTokens;
    const int64_t count = std::min(kBlockTokens - offset, end - token);
    const int32_t block = block_ids[static_cast<size_t>(token / kBlockTokens)];
    device_->copy_to_host(slots.data() + (token - begin) * num_images(),
                          probe_address(block) + offset * num_images(),
                          static_cast<int64_t>(sizeof(double)) * count * num_images(),
                          {});
    token += count;
  }
  device_->synchronize_blocking({});
  std::vector<double> sums(static_cast<size_t>(num_images()));
  for (size_t i = 0; i < slots.size(); ++i) {
    sums[i % sums.size()] += slots[i];
  }
  return sums;
}

char* PagedLatentCache::address(int64_t block) const noexcept {
  return static_cast<char*>(memory_.data()) + block * block_bytes();
}

double* PagedLatentCache::probe_address(int64_t block) const noexcept {
  return static_cast<double*>(probes_.data()) + block * kBlockTokens * num_images();
}

}  // namespace tessera
