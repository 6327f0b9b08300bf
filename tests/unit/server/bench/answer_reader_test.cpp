#include "server/bench/answer_reader.h"

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

using std::chrono::milliseconds;

class AnswerReaderTest : public ::testing::Test {
 protected:
  void feed(int at_ms, std::string_view payload) {
    reader_.set_now(start_ + milliseconds(at_ms));
    reader_.on_event(payload);
  }

  const Clock::time_point start_ = Clock::now();
  RequestRecord record_;
  Counter num_events_;
  AnswerReader reader_{record_, num_events_};
};

TEST(HasContentTest, OnlyTextThatIsNotEmptyCounts) {
  EXPECT_TRUE(has_content(R"({"choices":[{"delta":{"content":"a"}}]})"));
  EXPECT_TRUE(has_content(R"({"choices": [{"delta": {"content" : "a"}}]})"));
  EXPECT_TRUE(has_content(R"({"choices":[{"index":0,"text":" "}]})"));
  EXPECT_TRUE(has_content(R"({"choices":[{"delta":{"content":null,"reasoning_content":"h"}}]})"));
  EXPECT_TRUE(has_content(R"({"choices":[{"delta":{"content":"\""}}]})"));
  EXPECT_FALSE(has_content(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"));
  EXPECT_FALSE(has_content(R"({"choices":[{"delta":{"content":null}}]})"));
  EXPECT_FALSE(has_content(R"({"choices":[{"delta":{},"finish_reason":"length"}]})"));
  EXPECT_FALSE(has_content(R"({"choices":[{"index":0,"text":""}]})"));
  EXPECT_FALSE(has_content(""));
}

TEST(HasContentTest, KeysInsideOfStringsDoNotCount) {
  EXPECT_FALSE(has_content(R"({"error":{"message":"\"content\":\"x\" is missing"}})"));
  EXPECT_FALSE(has_content(R"({"a":"content","b":"x"})"));
  EXPECT_FALSE(has_content(R"({"logprobs":{"content":[{"token":"a"}]}})"));
}

TEST_F(AnswerReaderTest, TimesOfTextBecomeFirstLastAndGaps) {
  feed(5, R"({"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]})");
  feed(10, R"({"choices":[{"delta":{"content":"a"},"finish_reason":null}]})");
  feed(30, R"({"choices":[{"delta":{"content":"b"},"finish_reason":null}]})");
  feed(31, R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
  feed(32, R"({"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3}})");
  feed(33, "[DONE]");
  reader_.finish();
  EXPECT_EQ(record_.first_byte, start_ + milliseconds(5));
  EXPECT_EQ(record_.first_content, start_ + milliseconds(10));
  EXPECT_EQ(record_.last_content, start_ + milliseconds(31));
  EXPECT_EQ(record_.gaps_ms, std::vector<float>{20.0F});
  EXPECT_EQ(record_.num_content_events, 2);
  EXPECT_EQ(record_.prompt_tokens, 11);
  EXPECT_EQ(record_.completion_tokens, 3);
  EXPECT_EQ(num_events_.value(), 2);
  EXPECT_TRUE(reader_.is_done());
  EXPECT_TRUE(reader_.has_finish_reason());
  EXPECT_EQ(reader_.error(), "");
}

TEST_F(AnswerReaderTest, UsageMayComeWithText) {
  feed(1, R"({"choices":[{"text":"a"}],"usage":{"prompt_tokens":4,"completion_tokens":1}})");
  feed(2, R"({"choices":[{"text":"b","finish_reason":"length"}],
              "usage":{"prompt_tokens":4,"completion_tokens":2}})");
  reader_.finish();
  EXPECT_EQ(record_.completion_tokens, 2);
  EXPECT_TRUE(reader_.has_finish_reason());
}

TEST_F(AnswerReaderTest, WithoutUsageEventsAreCounted) {
  feed(1, R"({"choices":[{"text":"a"}],"usage":null})");
  feed(2, R"({"choices":[{"text":"b"}],"usage":null})");
  reader_.finish();
  EXPECT_EQ(record_.completion_tokens, 2);
  EXPECT_FALSE(reader_.has_finish_reason());
}

TEST_F(AnswerReaderTest, ErrorEventIsKeptWithItsMessage) {
  feed(1, R"({"error":{"message":"out of\nblocks","type":"server_error"}})");
  EXPECT_EQ(reader_.error(), "error event: out of blocks");
}

TEST_F(AnswerReaderTest, EventThatIsNoObjectIsAnError) {
  feed(1, "half of an ev");
  EXPECT_EQ(reader_.error(), "event is not a JSON object");
}

TEST(ErrorMessageTest, ReadsTheUsualShapesAndBoundsTheRest) {
  EXPECT_EQ(error_message(R"({"error":{"message":"m"}})"), "m");
  EXPECT_EQ(error_message(R"({"error":"text"})"), "text");
  EXPECT_EQ(error_message(R"({"message":"top"})"), "top");
  EXPECT_EQ(error_message("<html>"), "<html>");
  EXPECT_EQ(error_message(std::string(1000, 'x')).size(), 160U);
}

}  // namespace
}  // namespace tessera::bench
