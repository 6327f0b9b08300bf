// GrpcDecodePort against the links of DecodeServiceImpl over loopback.
#include <map>
#include <memory>
#include <thread>
#include <variant>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/rpc/decode_service.h"
#include "server/rpc/grpc_decode_port.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

/// What prefill hears.
class FakeListener final : public DecodePort::Listener, public Watched {
 public:
  void on_link_message(LinkId link, DecodeMessage message) override {
    change([&] {
      num_late_calls_ += closed_.count(link) == 1;
      messages_.push_back(std::move(message));
    });
  }
  void on_link_closed(LinkId link, const Status& status) override {
    change([&] {
      num_late_calls_ += closed_.count(link) == 1;
      closed_[link] = status;
    });
  }

  [[nodiscard]] bool wait_for_messages_blocking(size_t count) const {
    return wait_blocking([&] { return messages_.size() >= count; });
  }
  /// An ok status with a message of its own when it does not close.
  [[nodiscard]] Status closed_blocking(LinkId link) const {
    if (!wait_blocking([&] { return closed_.count(link) == 1; })) {
      return {StatusCode::kUnknown, "the link was not closed"};
    }
    const std::lock_guard lock(mutex_);
    return closed_.at(link);
  }
  [[nodiscard]] std::vector<DecodeMessage> messages() const {
    const std::lock_guard lock(mutex_);
    return messages_;
  }
  [[nodiscard]] int num_late_calls() const {
    const std::lock_guard lock(mutex_);
    return num_late_calls_;
  }

 private:
  std::vector<DecodeMessage> messages_;
  std::map<LinkId, Status> closed_;
  int num_late_calls_ = 0;
};

class LinkRpcTest : public ::testing::Test {
 protected:
  void TearDown() override {
    port_.reset();
    server_.reset();
    EXPECT_EQ(listener_.num_late_calls(), 0);
    EXPECT_EQ(door_.num_late_calls(), 0);
  }
  void start_port(const DecodePortOptions& options = {}) {
    port_ = std::make_unique<GrpcDecodePort>(options);
    port_->set_listener(listener_);
  }

  FakeDecodeWorker worker_;
  FakeDoor door_;
  DecodeServiceImpl service_{worker_, door_};
  std::unique_ptr<RpcServer> server_ = start_server({&service_});
  FakeListener listener_;
  std::unique_ptr<GrpcDecodePort> port_;
};

TEST_F(LinkRpcTest, ManyMessagesArriveInOrderBothWays) {
  constexpr uint64_t kNumMessages = 10'000;
  start_port();
  const LinkId link = port_->open(server_->address());
  const auto decode_end = door_.link_blocking(1);
  ASSERT_NE(decode_end, nullptr);
  {
    const std::jthread decode([&] {
      for (uint64_t i = 0; i < kNumMessages; ++i) {
        decode_end->send(Grant{make_key(i), static_cast<int64_t>(i)});
      }
    });
    for (uint64_t i = 0; i < kNumMessages; ++i) {
      port_->send(link, Abort{make_key(i), "reason"});
    }
  }
  ASSERT_TRUE(door_.wait_for_messages_blocking(kNumMessages));
  ASSERT_TRUE(listener_.wait_for_messages_blocking(kNumMessages));
  const auto at_decode = door_.messages();
  const auto at_prefill = listener_.messages();
  for (uint64_t i = 0; i < kNumMessages; ++i) {
    ASSERT_EQ(std::get<Abort>(at_decode[i]).key, make_key(i));
    ASSERT_EQ(std::get<Grant>(at_prefill[i]).key, make_key(i));
    ASSERT_EQ(std::get<Grant>(at_prefill[i]).num_held_tokens, static_cast<int64_t>(i));
  }
}

TEST_F(LinkRpcTest, CloseIsHeardOnceOnBothSides) {
  start_port();
  const LinkId link = port_->open(server_->address());
  ASSERT_NE(door_.link_blocking(1), nullptr);
  port_->close(link);
  port_->close(link);
  port_->send(link, KeepAlive{});
  EXPECT_TRUE(listener_.closed_blocking(link).is_ok());
  ASSERT_TRUE(door_.wait_for_closed_blocking(1));
  EXPECT_EQ(door_.num_closed(), 1);
}

TEST_F(LinkRpcTest, DecodesStatusArrives) {
  start_port();
  const LinkId link = port_->open(server_->address());
  const auto decode_end = door_.link_blocking(1);
  ASSERT_NE(decode_end, nullptr);
  decode_end->close(failed_precondition("layout a, expected b"));
  EXPECT_EQ(listener_.closed_blocking(link), failed_precondition("layout a, expected b"));
  ASSERT_TRUE(door_.wait_for_closed_blocking(1));
  decode_end->send(KeepAlive{});  // outlives its call
}

TEST_F(LinkRpcTest, DoorsRefusalOfAMessageEndsTheLink) {
  start_port();
  door_.refuse(resource_exhausted("the mailbox is full"));
  const LinkId link = port_->open(server_->address());
  port_->send(link, Hello{});
  EXPECT_EQ(listener_.closed_blocking(link), resource_exhausted("the mailbox is full"));
  EXPECT_TRUE(door_.wait_for_closed_blocking(1));
}

TEST_F(LinkRpcTest, MalformedMessageEndsTheLinkNamingTheField) {
  start_port();
  const LinkId link = port_->open(server_->address());
  Reserve reserve;
  reserve.prompt_ids = {1};
  reserve.max_total_tokens = 2;
  reserve.num_choices = 0;
  port_->send(link, reserve);
  EXPECT_EQ(listener_.closed_blocking(link),
            invalid_argument("reserve.num_choices is 0, expected 1 to 128"));
  EXPECT_TRUE(door_.messages().empty());
  EXPECT_TRUE(door_.wait_for_closed_blocking(1));
}

TEST_F(LinkRpcTest, OverflowingQueueClosesTheLinkOnBothSides) {
  DecodePortOptions options;
  options.outbox.max_bytes = 1000;
  start_port(options);
  const LinkId link = port_->open(server_->address());
  ASSERT_NE(door_.link_blocking(1), nullptr);
  port_->send(link, Abort{make_key(1), std::string(2000, 'x')});
  EXPECT_EQ(listener_.closed_blocking(link).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(door_.wait_for_closed_blocking(1));
}

TEST_F(LinkRpcTest, OverflowAtDecodeClosesTheLinkOnBothSides) {
  ServiceLimits limits;
  limits.link_outbox.max_bytes = 1000;
  DecodeServiceImpl service(worker_, door_, limits);
  const auto server = start_server({&service});
  start_port();
  const LinkId link = port_->open(server->address());
  const auto decode_end = door_.link_blocking(1);
  ASSERT_NE(decode_end, nullptr);
  decode_end->send(Reject{make_key(1), unavailable(std::string(2000, 'x'))});
  EXPECT_FALSE(listener_.closed_blocking(link).is_ok());
  EXPECT_TRUE(door_.wait_for_closed_blocking(1));
}

TEST_F(LinkRpcTest, DeathOfDecodeIsHeardOnce) {
  start_port();
  const LinkId link = port_->open(server_->address());
  ASSERT_NE(door_.link_blocking(1), nullptr);
  server_.reset();
  EXPECT_EQ(listener_.closed_blocking(link).code(), StatusCode::kUnavailable);
  EXPECT_EQ(door_.num_closed(), 1);
}

TEST_F(LinkRpcTest, DeathOfPrefillIsHeardOnce) {
  start_port();
  const LinkId link = port_->open(server_->address());
  ASSERT_NE(door_.link_blocking(1), nullptr);
  port_.reset();
  EXPECT_TRUE(listener_.closed_blocking(link).is_ok());
  ASSERT_TRUE(door_.wait_for_closed_blocking(1));
  EXPECT_EQ(door_.num_closed(), 1);
}

TEST_F(LinkRpcTest, NobodyListeningClosesTheLink) {
  start_port();
  const std::string address = server_->address();
  server_.reset();
  const LinkId link = port_->open(address);
  port_->send(link, Hello{});
  EXPECT_EQ(listener_.closed_blocking(link).code(), StatusCode::kUnavailable);
}

TEST_F(LinkRpcTest, UnusableAddressClosesTheLink) {
  start_port();
  const LinkId link = port_->open(std::string(300, 'a'));
  EXPECT_EQ(listener_.closed_blocking(link).code(), StatusCode::kInvalidArgument);
}

TEST_F(LinkRpcTest, PeerThatNeverAnswersIsGivenUp) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof name;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size), 0);

  DecodePortOptions options;
  options.answer_timeout = std::chrono::milliseconds(100);
  start_port(options);
  const LinkId link = port_->open("127.0.0.1:" + std::to_string(ntohs(name.sin_port)));
  port_->send(link, Hello{});
  const Status status = listener_.closed_blocking(link);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("did not answer within 100 ms"), std::string::npos)
      << status.to_string();
  ::close(listener);
}

TEST_F(LinkRpcTest, DoorThatNeverAnswersIsGivenUp) {
  DecodePortOptions options;
  options.answer_timeout = std::chrono::milliseconds(100);
  start_port(options);
  const LinkId link = port_->open(server_->address());
  EXPECT_EQ(listener_.closed_blocking(link).code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::rpc::testing
