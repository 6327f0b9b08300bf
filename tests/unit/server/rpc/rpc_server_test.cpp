// What an RpcServer offers and refuses, seen by foreign clients.
#include "server/rpc/rpc_server.h"

#include <chrono>
#include <future>
#include <memory>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "proto/tessera/decode.grpc.pb.h"
#include "server/rpc/decode_service.h"
#include "server/rpc/prefill_service.h"
#include "server/rpc/wire_limits.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

constexpr std::chrono::seconds kPatience{20};

grpc::ByteBuffer make_buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

std::string bytes_of(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) {
    return {};
  }
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

class RpcServerTest : public ::testing::Test {
 protected:
  struct Answer {
    grpc::Status status;
    std::string bytes;
  };
  /// One message there, one back; whatever the kind of the method.
  [[nodiscard]] Answer call_blocking(const std::string& method, const std::string& request) const {
    grpc::GenericStub stub(channel_->grpc_channel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const grpc::ByteBuffer request_buffer = make_buffer(request);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, {}, &request_buffer, &response, [&](grpc::Status status) {
      done.set_value(std::move(status));
    });
    grpc::Status status = done.get_future().get();
    return {status, status.ok() ? bytes_of(response) : std::string()};
  }
  /// grpc.health.v1: 1 is serving, 2 is not; 0 when there is no answer.
  [[nodiscard]] int health_blocking(const std::string& service) const {
    const std::string request =
        service.empty() ? "" : "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
    const Answer answer = call_blocking("/grpc.health.v1.Health/Check", request);
    return answer.bytes.size() == 2 && answer.bytes[0] == '\x08' ? answer.bytes[1] : 0;
  }

  static ServiceLimits small_queue() {
    ServiceLimits limits;
    limits.max_queued_events = 64;
    return limits;
  }

  FakePrefillWorker prefill_worker_;
  FakeDecodeWorker decode_worker_;
  FakeDoor door_;
  PrefillServiceImpl prefill_{prefill_worker_};
  DecodeServiceImpl decode_{decode_worker_, door_, small_queue()};
  std::unique_ptr<RpcServer> server_ = start_server({&prefill_, &decode_});
  std::shared_ptr<WorkerChannel> channel_ = connect(server_->address());
};

TEST_F(RpcServerTest, HealthFollowsServing) {
  for (const char* service : {"", "tessera.v1.PrefillService", "tessera.v1.DecodeService"}) {
    EXPECT_EQ(health_blocking(service), 2) << service;
  }
  server_->set_serving(true);
  for (const char* service : {"", "tessera.v1.PrefillService", "tessera.v1.DecodeService"}) {
    EXPECT_EQ(health_blocking(service), 1) << service;
  }
  server_->set_serving(false);
  EXPECT_EQ(health_blocking(""), 2);
  EXPECT_EQ(call_blocking("/grpc.health.v1.Health/Check", "\x0a\x04none").status.error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcServerTest, ReflectionListsTheServices) {
  const std::string list_services("\x3a\x01*", 3);
  const Answer answer = call_blocking(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list_services);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_NE(answer.bytes.find("tessera.v1.PrefillService"), std::string::npos);
  EXPECT_NE(answer.bytes.find("tessera.v1.DecodeService"), std::string::npos);
  EXPECT_NE(answer.bytes.find("grpc.health.v1.Health"), std::string::npos);
}

TEST_F(RpcServerTest, PortInUseIsAnErrorThatNamesIt) {
  RpcServerOptions options;
  options.port = server_->port();
  const auto second = RpcServer::create(options, {});
  ASSERT_FALSE(second.is_ok());
  EXPECT_EQ(second.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find("127.0.0.1"), std::string::npos);
  EXPECT_NE(second.status().message().find(std::to_string(server_->port())), std::string::npos);
}

TEST_F(RpcServerTest, MissingTlsFileIsAnError) {
  RpcServerOptions options;
  options.tls.certificate_file = "/nonexistent/cert.pem";
  options.tls.key_file = "/nonexistent/key.pem";
  options.tls.ca_file = "/nonexistent/ca.pem";
  EXPECT_EQ(RpcServer::create(options, {}).status().code(), StatusCode::kNotFound);
  options.tls.key_file.clear();
  EXPECT_EQ(RpcServer::create(options, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(RpcServerTest, OversizeMessageIsRefused) {
  v1::AttachRequest request;
  request.set_num_choices(1);
  std::string bytes = request.SerializeAsString();
  bytes.append(static_cast<size_t>(kMaxMessageBytes) + 1, '\0');
  grpc::GenericStub stub(grpc::CreateChannel(server_->address(),  // without our client's limit
                                             grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const grpc::ByteBuffer buffer = make_buffer(bytes);
  grpc::ByteBuffer response;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context,
                 "/tessera.v1.DecodeService/Attach",
                 {},
                 &buffer,
                 &response,
                 [&](grpc::Status status) { done.set_value(std::move(status)); });
  EXPECT_EQ(done.get_future().get().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(RpcServerTest, BytesThatAreNoMessageAreRefused) {
  const Answer answer = call_blocking("/tessera.v1.DecodeService/Attach", "\xff\xff\xff\xff");
  EXPECT_FALSE(answer.status.ok());
}

TEST_F(RpcServerTest, RequestIdIsEchoed) {
  decode_worker_.refuse(not_found("no reservation"));
  const auto stub = v1::DecodeService::NewStub(channel_->grpc_channel());
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "client-7");
  v1::AttachRequest request;
  request.mutable_key()->set_request_low(7);
  request.set_num_choices(1);
  const auto reader = stub->Attach(&context, request);
  v1::DecodeEvent event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(context.GetServerInitialMetadata().count("x-request-id") +
                context.GetServerTrailingMetadata().count("x-request-id"),
            1U);
}

TEST_F(RpcServerTest, SlowReaderIsCutAndTheWorkerTold) {
  const auto stub = v1::DecodeService::NewStub(channel_->grpc_channel());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::AttachRequest request;
  request.mutable_key()->set_request_low(5);
  request.set_num_choices(1);
  const auto reader = stub->Attach(&context, request);
  const HandoffKey key{{0, 5}, 0};
  const auto call = decode_worker_.take_blocking(key);
  ASSERT_NE(call.sink, nullptr);
  TokenEvent event = make_token(1);
  event.top_logprobs.assign(64, {1, -1.0F});
  for (int i = 0; i < 100'000 && decode_worker_.num_cancels(key) == 0; ++i) {
    call.sink->on_token(event);
  }
  ASSERT_TRUE(decode_worker_.wait_for_cancel_blocking(key));
  v1::DecodeEvent read;
  while (reader->Read(&read)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED) << status.error_message();
  EXPECT_EQ(decode_worker_.num_cancels(key), 1);
}

TEST_F(RpcServerTest, ShutdownLetsCallsFinish) {
  const auto stub = v1::DecodeService::NewStub(channel_->grpc_channel());
  grpc::ClientContext context;
  v1::AttachRequest request;
  request.mutable_key()->set_request_low(5);
  request.set_num_choices(1);
  const auto reader = stub->Attach(&context, request);
  const auto call = decode_worker_.take_blocking({{0, 5}, 0});
  ASSERT_NE(call.sink, nullptr);
  auto shutdown = std::async(std::launch::async,
                             [this] { server_->shutdown_blocking(Deadline::after(kPatience)); });
  call.sink->on_token(make_token(1, FinishReason::kStop));
  v1::DecodeEvent event;
  EXPECT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_attached());
  EXPECT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.token().token_id(), 101);
  EXPECT_TRUE(reader->Finish().ok());
  shutdown.get();
  EXPECT_EQ(decode_worker_.num_cancels({{0, 5}, 0}), 0);
}

}  // namespace
}  // namespace tessera::rpc::testing
