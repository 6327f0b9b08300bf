#include <thread>

#include <gtest/gtest.h>

#include "server/http/http_server.h"
#include "tests/unit/server/http/http_server_fixture.h"

namespace tessera::http {
namespace {

using std::chrono::milliseconds;

Deadline soon() {
  return Deadline::after(kPatience);
}

TEST(HttpDrainTest, EndsAtOnceWhenNothingIsOpen) {
  const auto server = start_server({}, echo);
  EXPECT_TRUE(server->drain_blocking(soon()));
  const RawHttpClient late(server->port());
  EXPECT_FALSE(late.is_connected());
}

TEST(HttpDrainTest, ClosesIdleConnections) {
  const auto server = start_server({}, echo);
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(kGet));
  ASSERT_TRUE(client.read_response().has_value());
  EXPECT_TRUE(server->drain_blocking(soon()));
  EXPECT_TRUE(client.is_closed_silently());
}

TEST(HttpDrainTest, AnAnnouncedOneSendsKeptConnectionsAway) {
  ExchangeQueue queue;
  const auto server = start_server({}, queue.handler());
  RawHttpClient idle(server->port());
  RawHttpClient busy(server->port());
  ASSERT_TRUE(idle.send(kGet));
  queue.pop()->respond({});
  const auto kept = idle.read_response();
  ASSERT_TRUE(kept.has_value());
  EXPECT_NE(kept->header("Connection"), "close");
  ASSERT_TRUE(busy.send(kGet));
  const auto open = queue.pop();

  server->announce_drain();
  EXPECT_TRUE(idle.is_closed_silently());
  open->respond({});
  const auto last = busy.read_response();
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->header("Connection"), "close");
  RawHttpClient late(server->port());  // answered, and no longer than that
  ASSERT_TRUE(late.send(kGet));
  const auto late_exchange = queue.pop();
  EXPECT_FALSE(server->drain_blocking(Deadline::after(milliseconds(10))));
  late_exchange->respond({});
  const auto refused = late.read_response();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->header("Connection"), "close");
  EXPECT_TRUE(server->drain_blocking(soon()));
}

TEST(HttpDrainTest, WaitsForOpenExchanges) {
  ExchangeQueue queue;
  const auto server = start_server({}, queue.handler());
  RawHttpClient streaming(server->port());
  RawHttpClient waiting(server->port());
  ASSERT_TRUE(streaming.send(kGet));
  const auto stream = queue.pop();
  ASSERT_TRUE(waiting.send(kGet));
  const auto plain = queue.pop();
  ASSERT_TRUE(stream != nullptr && plain != nullptr);
  stream->begin_stream({});
  stream->send_event("1");
  ASSERT_TRUE(streaming.read_until("data: 1\n\n\r\n").has_value());

  EXPECT_FALSE(server->drain_blocking(Deadline::after(milliseconds(10))));
  bool is_drained = false;
  std::jthread drain([&] { is_drained = server->drain_blocking(soon()); });
  EXPECT_TRUE(stream->send_event("2"));
  stream->end_stream();
  plain->respond({});
  drain.join();
  EXPECT_TRUE(is_drained);
  EXPECT_EQ(streaming.read_to_end(), "9\r\ndata: 2\n\n\r\n0\r\n\r\n");
  const auto response = waiting.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->header("Connection"), "close");
  EXPECT_TRUE(waiting.is_closed_silently());
}

TEST(HttpDrainTest, DestructorCutsOffOpenExchanges) {
  ExchangeQueue queue;
  auto server = start_server({}, queue.handler());
  RawHttpClient client(server->port());
  ASSERT_TRUE(client.send(kGet));
  const auto exchange = queue.pop();
  ASSERT_NE(exchange, nullptr);
  Signal gone;
  exchange->on_client_gone([&] { gone.set(); });
  server.reset();
  EXPECT_EQ(gone.count(), 1);
  EXPECT_TRUE(client.is_closed_silently());
}

}  // namespace
}  // namespace tessera::http
