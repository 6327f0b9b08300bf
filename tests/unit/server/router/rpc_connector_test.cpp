// A router in front of real gRPC services on loopback, behind which a test plays the workers.
#include "server/router/rpc_connector.h"

#include <atomic>

#include <gtest/gtest.h>

#include "server/router/router.h"
#include "server/rpc/decode_service.h"
#include "server/rpc/prefill_service.h"
#include "server/rpc/worker_service.h"
#include "tests/unit/server/router/router_fakes.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::router {
namespace {

using rpc::testing::FakeDecodeWorker;
using rpc::testing::FakeDoor;
using rpc::testing::FakePrefillWorker;
using rpc::testing::make_info;
using rpc::testing::RecordingSink;

rpc::WorkerServiceImpl::Callbacks callbacks_of(rpc::WorkerRole role,
                                               const std::atomic<uint64_t>& epoch) {
  return {.identity =
              [role, &epoch] {
                rpc::WorkerIdentity identity{role, make_info(), "test"};
                identity.info.epoch = epoch;
                return identity;
              },
          .load = [] { return WorkerLoad{}; },
          .liveness = [] { return Status::ok(); },
          .start_drain = [] {}};
}

class RpcConnectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    prefill_server = rpc::testing::start_server({&prefill_service, &prefill_info});
    decode_server = rpc::testing::start_server({&decode_service, &decode_info});
    RouterOptions options = fake_options();
    options.prefill_workers = prefill_server->address();
    options.decode_workers = decode_server->address();
    auto created = Router::create(options, connector);
    ASSERT_TRUE(created.is_ok()) << created.status().to_string();
    router = std::move(created).value();
  }
  RequestId submit(const std::shared_ptr<RecordingSink>& sink) {
    GenerationRequest request = make_request();
    const RequestId id = request.id;
    EXPECT_TRUE(router->submit(std::move(request), sink).is_ok());
    return id;
  }

  std::atomic<uint64_t> epoch{77};
  FakePrefillWorker prefill;
  FakeDecodeWorker decode;
  FakeDoor door;
  rpc::PrefillServiceImpl prefill_service{prefill};
  rpc::DecodeServiceImpl decode_service{decode, door};
  rpc::WorkerServiceImpl prefill_info{callbacks_of(rpc::WorkerRole::kPrefill, epoch)};
  rpc::WorkerServiceImpl decode_info{callbacks_of(rpc::WorkerRole::kDecode, epoch)};
  std::unique_ptr<rpc::RpcServer> prefill_server;
  std::unique_ptr<rpc::RpcServer> decode_server;
  RpcConnector connector;
  std::unique_ptr<Router> router;
};

TEST_F(RpcConnectorTest, CarriesARequestThroughBothWorkers) {
  const auto sink = std::make_shared<RecordingSink>();
  const HandoffKey key{submit(sink), 1};
  const auto first = prefill.take_blocking(key);
  ASSERT_NE(first.sink, nullptr);
  EXPECT_EQ(first.request.generation.prompt_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(first.request.decode_candidates, std::vector<std::string>{decode_server->address()});
  first.sink->on_reserved(decode_server->address());
  const auto second = decode.take_blocking(key);
  ASSERT_NE(second.sink, nullptr);
  EXPECT_EQ(second.request.attach.sampling.seed, key.request.low);
  first.sink->on_token(token(0, 10));
  first.sink->on_handed_over();
  second.sink->on_token(token(1, 11, true));
  ASSERT_TRUE(sink->wait_for_tokens_blocking(2));
  EXPECT_TRUE(router->drain_blocking(Deadline::after(std::chrono::seconds(20))).is_ok());
}

TEST_F(RpcConnectorTest, CancelsAtBothWorkers) {
  const auto sink = std::make_shared<RecordingSink>();
  const HandoffKey key{submit(sink), 1};
  const auto first = prefill.take_blocking(key);
  ASSERT_NE(first.sink, nullptr);
  first.sink->on_reserved(decode_server->address());
  const auto second = decode.take_blocking(key);
  ASSERT_NE(second.sink, nullptr);
  router->cancel(key.request);
  EXPECT_TRUE(prefill.wait_for_cancel_blocking(key));
  EXPECT_TRUE(decode.wait_for_cancel_blocking(key));
}

TEST_F(RpcConnectorTest, ReplaysWhenAWorkersServerComesBack) {
  const auto sink = std::make_shared<RecordingSink>();
  const RequestId id = submit(sink);
  const auto first = prefill.take_blocking({id, 1});
  ASSERT_NE(first.sink, nullptr);
  rpc::RpcServerOptions options;
  options.port = prefill_server->port();
  prefill_server.reset();  // the stream and the watch break
  epoch = 78;
  rpc::PrefillServiceImpl next_service{prefill};
  rpc::WorkerServiceImpl next_info{callbacks_of(rpc::WorkerRole::kPrefill, epoch)};
  const auto next_server = rpc::testing::start_server({&next_service, &next_info}, options);
  ASSERT_NE(next_server, nullptr);
  const auto second = prefill.take_blocking({id, 2});
  ASSERT_NE(second.sink, nullptr);
  second.sink->on_token(token(0, 10, true));
  second.sink->on_handed_over();
  ASSERT_TRUE(sink->wait_for_tokens_blocking(1));
}

}  // namespace
}  // namespace tessera::router
