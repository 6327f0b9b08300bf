// What servers do to a client, over loopback: one broken answer each, and the reason that is kept.
#include "server/bench/http_target.h"

#include <atomic>

#include <gtest/gtest.h>

#include "tests/support/fake_sse_server.h"
#include "tests/unit/server/bench/load_support.h"

namespace tessera::bench {
namespace {

using tessera::testing::chat_answer;
using tessera::testing::FakeAnswer;
using tessera::testing::FakePiece;
using tessera::testing::FakeRequest;
using tessera::testing::FakeSseServer;
using tessera::testing::http_chunk;
using tessera::testing::plain_response;
using tessera::testing::stream_head;
using testing::chat_settings;
using testing::run_blocking;

constexpr const char* kToken = R"(data: {"choices":[{"delta":{"content":"a"}}]})"
                               "\n\n";
constexpr const char* kEnd = R"(data: {"choices":[{"delta":{},"finish_reason":"stop"}]})"
                             "\n\n";

FakeAnswer raw(const std::string& bytes, bool is_closed_after = false) {
  return {.pieces = {{.bytes = std::make_shared<const std::string>(bytes)}},
          .is_closed_after = is_closed_after};
}

/// The record of one request that is answered so.
RequestRecord record_of(const FakeAnswer& answer) {
  FakeSseServer server([&](const FakeRequest&) { return answer; });
  BenchSettings settings = chat_settings(server.url(), 1);
  settings.request_timeout = std::chrono::seconds(20);
  LoadResult result = run_blocking(settings);
  EXPECT_EQ(result.records.size(), 1U);
  return result.records.empty() ? RequestRecord() : result.records.front();
}

TEST(HttpTargetTest, WholeAnswerIsCompleted) {
  const RequestRecord record = record_of(chat_answer({0.0, 0.0, 0.0}));
  EXPECT_EQ(record.outcome, Outcome::kCompleted) << record.error;
  EXPECT_EQ(record.num_content_events, 3);
  EXPECT_EQ(record.completion_tokens, 3);
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.gaps_ms.size(), 2U);
  EXPECT_LE(record.sent, record.first_byte);
  EXPECT_LE(record.first_byte, record.first_content);
  EXPECT_LE(record.first_content, record.last_content);
  EXPECT_LE(record.last_content, record.done);
}

TEST(HttpTargetTest, AnswerCutAnywhereGivesTheSameRecord) {
  const FakeAnswer whole = chat_answer({0.0, 0.0});
  std::string bytes;
  for (const FakePiece& piece : whole.pieces) {
    bytes += *piece.bytes;
  }
  FakeAnswer byte_by_byte;
  for (const char c : bytes) {
    byte_by_byte.pieces.push_back(
        {.delay_ms = 0.0, .bytes = std::make_shared<const std::string>(1, c)});
  }
  const RequestRecord record = record_of(byte_by_byte);
  EXPECT_EQ(record.outcome, Outcome::kCompleted) << record.error;
  EXPECT_EQ(record.num_content_events, 2);
  EXPECT_EQ(record.completion_tokens, 2);
}

TEST(HttpTargetTest, StatusAndMessageOfARefusalAreKept) {
  const RequestRecord record = record_of(raw(plain_response(
      "429 Too Many Requests", "application/json", R"({"error":{"message":"too busy"}})")));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error, "HTTP 429: too busy");
}

TEST(HttpTargetTest, AnswerThatIsNoEventStreamHasFailed) {
  const RequestRecord record = record_of(raw(plain_response("200 OK", "application/json", "{}")));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error, "not an event stream: application/json");
}

TEST(HttpTargetTest, StreamThatBreaksOffHasFailed) {
  const RequestRecord record = record_of(raw(stream_head() + http_chunk(kToken), true));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error, "stream broke off: connection closed");
  EXPECT_EQ(record.num_content_events, 1);
}

TEST(HttpTargetTest, StreamThatEndsWithoutDoneOrReasonHasFailed) {
  const RequestRecord record = record_of(raw(stream_head() + http_chunk(kToken) + "0\r\n\r\n"));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error, "stream ended before [DONE]");
}

TEST(HttpTargetTest, StreamThatEndsWithItsReasonIsCompleted) {
  const RequestRecord record =
      record_of(raw(stream_head() + http_chunk(kToken) + http_chunk(kEnd) + "0\r\n\r\n"));
  EXPECT_EQ(record.outcome, Outcome::kCompleted) << record.error;
}

TEST(HttpTargetTest, BodyThatEndsWithTheConnectionIsCompleted) {
  const RequestRecord record =
      record_of(raw(std::string("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n") +
                        kToken + kEnd + "data: [DONE]\n\n",
                    true));
  EXPECT_EQ(record.outcome, Outcome::kCompleted) << record.error;
  EXPECT_EQ(record.num_content_events, 1);
}

TEST(HttpTargetTest, ErrorEventHasFailed) {
  const RequestRecord record =
      record_of(raw(stream_head() + http_chunk(kToken) +
                    http_chunk("data: {\"error\":{\"message\":\"worker lost\"}}\n\n")));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error, "error event: worker lost");
}

TEST(HttpTargetTest, BytesThatAreNoHttpHaveFailed) {
  const RequestRecord record = record_of(raw("SSH-2.0-OpenSSH\r\n\r\n", true));
  EXPECT_EQ(record.outcome, Outcome::kFailed);
  EXPECT_EQ(record.error.substr(0, 18), "bad HTTP response:");
}

TEST(HttpTargetTest, AnswerWithoutTextHasFailed) {
  const RequestRecord record = record_of(
      raw(stream_head() + http_chunk(std::string(kEnd) + "data: [DONE]\n\n") + "0\r\n\r\n"));
  EXPECT_EQ(record.error, "answer without text");
}

TEST(HttpTargetTest, SilentServerIsGivenUpAtTheDeadline) {
  FakeSseServer server([](const FakeRequest&) {
    return FakeAnswer{
        .pieces = {{.delay_ms = 60'000.0, .bytes = std::make_shared<const std::string>("late")}}};
  });
  BenchSettings settings = chat_settings(server.url(), 1);
  settings.request_timeout = std::chrono::milliseconds(100);
  const LoadResult result = run_blocking(settings);
  ASSERT_EQ(result.records.size(), 1U);
  EXPECT_EQ(result.records[0].error, "timeout");
}

TEST(HttpTargetTest, ClosedIdleConnectionIsReplacedWithoutAFailure) {
  // The server says nothing about it and closes after each answer.
  FakeSseServer server([](const FakeRequest&) {
    FakeAnswer answer = chat_answer({0.0, 0.0});
    answer.is_closed_after = true;
    return answer;
  });
  BenchSettings settings = chat_settings(server.url(), 20);
  settings.max_concurrency = 1;
  const LoadResult result = run_blocking(settings);
  ASSERT_EQ(result.records.size(), 20U);
  for (const RequestRecord& record : result.records) {
    EXPECT_EQ(record.outcome, Outcome::kCompleted) << record.error;
    EXPECT_EQ(record.num_resends, record.index == 0 ? 0 : 1) << record.index;
  }
}

TEST(HttpTargetTest, RequestsCarryKeyTypeAndTheirNumber) {
  std::string head;
  FakeSseServer server([&](const FakeRequest& request) {
    head = request.head;
    return chat_answer({0.0});
  });
  BenchSettings settings = chat_settings(server.url(), 1);
  settings.api_key = "sk-1";
  (void)run_blocking(settings);
  (void)server.stop();
  EXPECT_EQ(head.substr(0, head.find("\r\n")), "POST /v1/chat/completions HTTP/1.1");
  for (const char* line : {"Authorization: Bearer sk-1\r\n",
                           "Content-Type: application/json\r\n",
                           "X-Request-Id: bench-0\r\n",
                           "Host: 127.0.0.1:"}) {
    EXPECT_NE(head.find(line), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace tessera::bench
