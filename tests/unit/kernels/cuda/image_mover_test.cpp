// Checksums and copies of block images on a GPU, against the host's checksum.
#include "kernels/core/image_mover.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "engine/transport/checksum.h"
#include "kernels/cuda/cuda_backend.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kGap = 64;

class ImageMoverTest : public ::testing::Test {
 protected:
  std::vector<char> random_bytes(int64_t count) {
    std::vector<char> bytes(static_cast<size_t>(count));
    for (char& byte : bytes) {
      byte = static_cast<char>(random_());
    }
    return bytes;
  }
  DeviceBuffer upload(const std::vector<char>& bytes) {
    DeviceBuffer buffer = mover_->allocate(static_cast<int64_t>(bytes.size()));
    mover_->write_blocking(buffer.data(), bytes.data(), static_cast<int64_t>(bytes.size()));
    return buffer;
  }
  std::vector<char> download(const DeviceBuffer& buffer) {
    std::vector<char> bytes(static_cast<size_t>(buffer.num_bytes()));
    mover_->read_blocking(bytes.data(), buffer.data(), buffer.num_bytes());
    return bytes;
  }

  const uint32_t seed_ = std::random_device()();
  std::mt19937 random_{seed_};
  std::unique_ptr<Backend> backend_ = create_cuda_backend(0);
  std::unique_ptr<ImageMover> mover_ = backend_->device().make_image_mover();
};

TEST_F(ImageMoverTest, SumsAndCopiesImagesOfAnySizeAtAnyAlignment) {
  SCOPED_TRACE(seed_);
  for (const int64_t size : {1, 3, 4, 15, 16, 4095, 4096, 4097, 8192, 70001, 300032, 2621440}) {
    for (const int64_t shift : {0, 16, 8, 1}) {
      const std::vector<char> bytes = random_bytes(size + shift);
      const DeviceBuffer source = upload(bytes);
      const DeviceBuffer target =
          upload(std::vector<char>(static_cast<size_t>(size + kGap), '\x7f'));
      const ImageMover::Image image{target.data(), static_cast<char*>(source.data()) + shift, size};
      const std::vector<uint64_t> sums = mover_->finish_blocking(mover_->begin({&image, 1}));
      ASSERT_EQ(sums.size(), 1U);
      EXPECT_EQ(sums[0], image_checksum(bytes.data() + shift, size)) << size << " at " << shift;
      std::vector<char> expected(bytes.begin() + shift, bytes.end());
      expected.resize(static_cast<size_t>(size + kGap), '\x7f');
      EXPECT_EQ(download(target), expected) << size << " at " << shift;
    }
  }
}

TEST_F(ImageMoverTest, ABatchWithoutImagesIsDoneWhenTheEarlierOnesAre) {
  SCOPED_TRACE(seed_);
  constexpr int64_t kBytes = int64_t{64} << 20U;
  const DeviceBuffer source = upload(random_bytes(kBytes));
  const ImageMover::Image image{nullptr, source.data(), kBytes};
  const int64_t batch = mover_->begin({&image, 1});
  const int64_t mark = mover_->begin({});
  EXPECT_TRUE(mover_->finish_blocking(mark).empty());
  EXPECT_TRUE(mover_->is_done(batch));
  EXPECT_EQ(mover_->finish_blocking(batch).size(), 1U);
}

TEST_F(ImageMoverTest, BatchesUnderWayTogetherKeepTheirSums) {
  SCOPED_TRACE(seed_);
  constexpr int64_t kBytes = 40960 + 64;
  const int64_t num_images = mover_->max_images();
  const std::vector<char> bytes = random_bytes(kBytes * num_images);
  const DeviceBuffer source = upload(bytes);
  std::vector<ImageMover::Image> images;
  for (int64_t i = 0; i < num_images; ++i) {
    images.push_back({nullptr, static_cast<char*>(source.data()) + i * kBytes, kBytes});
  }
  std::vector<int64_t> batches;
  for (int64_t first = 0; first < 20; ++first) {  // more than there is room for at first
    batches.push_back(mover_->begin(std::span(images).subspan(static_cast<size_t>(first))));
  }
  for (int64_t first = 0; first < 20; ++first) {
    const std::vector<uint64_t> sums = mover_->finish_blocking(batches[static_cast<size_t>(first)]);
    ASSERT_EQ(static_cast<int64_t>(sums.size()), num_images - first);
    for (int64_t i = first; i < num_images; ++i) {
      EXPECT_EQ(sums[static_cast<size_t>(i - first)],
                image_checksum(bytes.data() + i * kBytes, kBytes));
    }
  }
}

TEST_F(ImageMoverTest, WhatWasCopiedIsSeenByWorkThatIsQueuedLater) {
  SCOPED_TRACE(seed_);
  const std::vector<char> bytes = random_bytes(int64_t{16} << 20);
  const DeviceBuffer source = upload(bytes);
  const DeviceBuffer target = mover_->allocate(source.num_bytes());
  const DeviceBuffer further = mover_->allocate(source.num_bytes());
  const ImageMover::Image image{target.data(), source.data(), source.num_bytes()};
  static_cast<void>(mover_->finish_blocking(mover_->begin({&image, 1})));
  backend_->device().copy(further.data(), target.data(), source.num_bytes(), {});
  backend_->device().synchronize_blocking({});
  EXPECT_EQ(download(further), bytes);
}

}  // namespace
}  // namespace tessera::kernels::cuda
