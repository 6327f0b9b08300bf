// What needs UCX but no second process.
#include "engine/transport/ucx_transport.h"

#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace tessera {
namespace {

class Nobody final : public KvSender::Listener, public KvReceiver::Listener {
 public:
  void on_connected(PeerId /*peer*/) override {}
  void on_acked(PeerId /*peer*/, const HandoffKey& /*key*/, int64_t /*count*/) override {}
  void on_drained(PeerId /*peer*/, const HandoffKey& /*key*/) override {}
  void on_parcel_failed(PeerId /*p*/, const HandoffKey& /*key*/, const Status& /*s*/) override {}
  void on_peer_failed(PeerId /*peer*/, const Status& /*status*/) override {}
  void on_disconnected(PeerId /*peer*/) override {}
  void on_landed(int32_t /*rank*/, const HandoffKey& /*key*/) override {}
  void on_connection_failed(int32_t /*rank*/, uint64_t /*c*/, const Status& /*s*/) override {}
};

TEST(UcxTransportTest, MemoryThatTheHostCannotReadIsRefused) {
  Nobody nobody;
  const std::unique_ptr<KvSender> sender = create_ucx_sender({}, nobody).value();
  constexpr size_t kBytes = 1 << 20;
  void* pages = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  EXPECT_EQ(sender->register_memory(pages, kBytes).code(), StatusCode::kInvalidArgument);
  munmap(pages, kBytes);
  std::vector<char> memory(kBytes);
  EXPECT_TRUE(sender->register_memory(memory.data(), kBytes).is_ok());
}

TEST(UcxTransportTest, RegionsAreBounded) {
  Nobody nobody;
  std::vector<std::byte> cache(1000);
  ReceiverOptions options;
  options.max_regions = 2;
  const std::unique_ptr<KvReceiver> receiver =
      create_ucx_receiver(options, 3, {cache.data(), 100, 100, 10}, nobody).value();
  const LandingRegion first = receiver->open().value();
  const LandingRegion second = receiver->open().value();
  EXPECT_EQ(first.rank, 3);
  EXPECT_NE(first.connection, second.connection);
  EXPECT_EQ(receiver->open().status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(receiver->statistics().open_regions, 2);
}

TEST(UcxTransportTest, RegionsOfPeersThatMayStillWriteAreRevokedAndCounted) {
  Nobody nobody;
  std::vector<std::byte> cache(1000);
  ReceiverOptions options;
  options.max_revoked_regions = 2;
  const std::unique_ptr<KvReceiver> receiver =
      create_ucx_receiver(options, 0, {cache.data(), 100, 100, 10}, nobody).value();
  std::vector<LandingRegion> regions;
  for (int i = 0; i < 2; ++i) {
    regions.push_back(receiver->open().value());
    receiver->close(regions.back().connection);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (receiver->statistics().revoked_regions < 2 &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(receiver->statistics().revoked_regions, 2);
  EXPECT_EQ(receiver->statistics().open_regions, 0);
  EXPECT_EQ(receiver->open().status().code(), StatusCode::kResourceExhausted);
  // What a late writer would do: the addresses can still be written.
  for (const LandingRegion& region : regions) {
    auto* late = reinterpret_cast<volatile char*>(region.base_address);
    *late = 'x';
    EXPECT_EQ(*late, 'x');
  }
}

}  // namespace
}  // namespace tessera
