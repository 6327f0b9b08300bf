#include "server/bench/sse_parser.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

struct Collector final : SseSink {
  void on_event(std::string_view payload) override { events.emplace_back(payload); }
  std::vector<std::string> events;
};

using Events = std::vector<std::string>;

Events parse(const std::vector<std::string>& pieces) {
  Collector collector;
  SseParser parser;
  for (const std::string& piece : pieces) {
    EXPECT_TRUE(parser.feed(piece, collector));
  }
  return collector.events;
}

TEST(SseParserTest, GivesThePayloadOfEachEvent) {
  EXPECT_EQ(parse({"data: one\n\ndata:two\n\n"}), (Events{"one", "two"}));
}

TEST(SseParserTest, AnyCutGivesTheSameEvents) {
  const std::string stream =
      ": a comment\n\ndata: first\r\n\r\nevent: named\ndata: second\nid: 7\n\ndata: a\ndata: b\n\n"
      "data: [DONE]\n\n";
  const Events whole = {"first", "second", "a\nb", "[DONE]"};
  EXPECT_EQ(parse({stream}), whole);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    EXPECT_EQ(parse({stream.substr(0, cut), stream.substr(cut)}), whole) << cut;
  }
  std::vector<std::string> bytes;
  for (const char c : stream) {
    bytes.emplace_back(1, c);
  }
  EXPECT_EQ(parse(bytes), whole);
}

TEST(SseParserTest, EventWithoutDataOrEndIsNone) {
  EXPECT_EQ(parse({"event: ping\n\n: keep-alive\n\ndata: unfinished\n"}), Events());
}

TEST(SseParserTest, EmptyDataIsAnEvent) {
  EXPECT_EQ(parse({"data:\n\n"}), Events{""});
}

TEST(SseParserTest, EndlessEventIsRefused) {
  Collector collector;
  SseParser parser;
  const std::string piece(size_t{1} << 20, 'x');
  ASSERT_TRUE(parser.feed("data: ", collector));
  bool is_taken = true;
  for (int i = 0; i < 5 && is_taken; ++i) {
    is_taken = parser.feed(piece, collector);
  }
  EXPECT_FALSE(is_taken);
  EXPECT_TRUE(collector.events.empty());
}

}  // namespace
}  // namespace tessera::bench
