#include "server/http/request_parser.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "server/http/request_target.h"

namespace tessera::http {
namespace {

using State = RequestParser::State;

/// Feeds `input` in pieces of `piece` bytes; returns the bytes left over.
std::string feed_pieces(RequestParser& parser, std::string_view input, size_t piece) {
  std::string waiting;
  while (parser.state() != State::kComplete && parser.state() != State::kFailed && !input.empty()) {
    waiting += input.substr(0, piece);
    input.remove_prefix(std::min(piece, input.size()));
    waiting.erase(0, parser.feed(waiting));
  }
  return waiting + std::string(input);
}

/// 0 when the request is accepted or incomplete.
int status_of(std::string_view input) {
  RequestParser parser({});
  feed_pieces(parser, input, input.size());
  return parser.failure().status;
}

constexpr std::string_view kChunked =
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
    "3;name=\"v;\"\r\nabc\r\n1\r\n\n\r\n0\r\nTrailer: t\r\n\r\n";

TEST(RequestParserTest, ReadsTheSameRequestHoweverItIsSplit) {
  for (size_t piece = 1; piece <= kChunked.size(); ++piece) {
    RequestParser parser({});
    EXPECT_EQ(feed_pieces(parser, std::string(kChunked) + "GET", piece).substr(0, 3), "GET");
    ASSERT_EQ(parser.state(), State::kComplete) << piece << " " << parser.failure().message;
    const Request request = parser.take_request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.body, "abc\n");
    EXPECT_EQ(request.headers.size(), 2U);
  }
}

TEST(RequestParserTest, ReadsTheShortestChunkedBodyByteByByte) {
  RequestParser parser({});
  feed_pieces(
      parser, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1);
  EXPECT_EQ(parser.state(), State::kComplete);
}

TEST(RequestParserTest, KnowsWhetherTheConnectionStays) {
  const auto keeps = [](std::string_view input) {
    RequestParser parser({});
    feed_pieces(parser, input, input.size());
    return parser.is_keep_alive();
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST(RequestParserTest, RefusesWhatServersReadDifferently) {
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\n";
  const std::string chunked = head + "Transfer-Encoding: chunked\r\n";
  const std::string fields[] = {
      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
      "Content-Length: 5\r\nContent-Length: 5\r\n",
      "Content-Length: 5\r\nContent-Length: 6\r\n",
      "Content-Length: 5, 5\r\n",
      "Content-Length: +5\r\n",
      "Content-Length: -5\r\n",
      "Content-Length: 0x5\r\n",
      "Content-Length: 5 5\r\n",
      "Content-Length:\r\n",
      "Content-Length: 99999999999999999999\r\n",
      "Transfer-Encoding: xchunked\r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding: gzip, chunked\r\n",
      "Transfer-Encoding: chunked, chunked\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: xchunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: \"chunked\"\r\n",
      "Transfer-Encoding : chunked\r\n",
      "Content-Length : 5\r\n",
      "A: b\r\n c\r\n",
      "A: b\r\n\tc\r\n",
      "A: b\nContent-Length: 5\r\n",
      "A: b\rContent-Length: 5\r\n",
      std::string("A: b\0c\r\n", 8),
      "A: b\x01\r\n",
      "A\x7f: b\r\n",
      ": b\r\n",
      "no colon\r\n",
      "Host: y\r\n",
      "Content Length: 5\r\n",
      std::string("A\0: b\r\n", 7),
  };
  for (const std::string& field : fields) {
    EXPECT_EQ(status_of(head + field + "\r\n"), 400) << field;
  }
  const std::string bodies[] = {
      "5\nhello\r\n0\r\n\r\n",
      "+5\r\nhello\r\n0\r\n\r\n",
      "0x5\r\nhello\r\n0\r\n\r\n",
      " 5\r\nhello\r\n0\r\n\r\n",
      "ffffffffffffffff1\r\nhello",
      "5\r\nhelloX\r\n0\r\n\r\n",
      "5;" + std::string(300, 'e') + "\r\nhello\r\n0\r\n\r\n",
      "5;" + std::string(5000, 'e'),
      "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
      "5 x\r\nhello\r\n0\r\n\r\n",
      "0\r\nContent-Length: 5\r\n\r\n",
      "0\r\nA: " + std::string(5000, 't'),
  };
  for (const std::string& body : bodies) {
    EXPECT_EQ(status_of(chunked + "\r\n" + body), 400) << body;
  }
}

TEST(RequestParserTest, RefusesMalformedRequestLines) {
  for (const std::string_view line : {"GET  / HTTP/1.1",
                                      "GET /",
                                      "GET / HTTP/2.0",
                                      "GET / http/1.1",
                                      "GET / HTTP/1.1 ",
                                      " GET / HTTP/1.1",
                                      "G\"T / HTTP/1.1",
                                      "GET x HTTP/1.1",
                                      "GET /%zz HTTP/1.1",
                                      "GET /%00 HTTP/1.1",
                                      "GET /\t HTTP/1.1"}) {
    EXPECT_EQ(status_of(std::string(line) + "\r\nHost: x\r\n\r\n"), 400) << line;
  }
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);  // no Host
  for (const std::string_view host : {"a b", "a, b", "a/b", "u@a", "a\tb", "a?b", "a\\b"}) {
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"), 400) << host;
  }
  for (const std::string_view host : {"", " ", "a", "a:80", "[::1]:80", "10.0.0.1"}) {
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"), 0) << host;
  }
  EXPECT_EQ(status_of("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(status_of("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0);
}

TEST(RequestParserTest, RefusesUnknownExpectations) {
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"), 417);
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"), 0);
}

TEST(RequestParserTest, BoundsHoldAtTheirEdges) {
  const std::string line = "GET /bcd HTTP/1.1\r\n";
  const std::string header = line + "Host: x\r\n\r\n";
  const auto status_with = [&](const ParseLimits& limits) {
    RequestParser parser(limits);
    feed_pieces(parser, header, header.size());
    return parser.failure().status;
  };
  ParseLimits limits;
  limits.max_header_bytes = static_cast<int64_t>(header.size());
  limits.max_headers = 1;
  limits.max_target_bytes = 4;
  EXPECT_EQ(status_with(limits), 0);
  ParseLimits smaller = limits;
  smaller.max_header_bytes -= 1;
  EXPECT_EQ(status_with(smaller), 431);
  smaller = limits;
  smaller.max_headers = 0;
  EXPECT_EQ(status_with(smaller), 431);
  smaller = limits;
  smaller.max_target_bytes = 3;
  EXPECT_EQ(status_with(smaller), 414);
}

TEST(RequestTargetTest, SplitsAndDecodes) {
  const auto origin = parse_request_target("/a%2Fb%20c?x=%20?y");
  ASSERT_TRUE(origin.has_value());
  EXPECT_EQ(origin->path, "/a/b c");
  EXPECT_EQ(origin->query, "x=%20?y");
  const auto absolute = parse_request_target("HTTP://host:80/a?b");
  ASSERT_TRUE(absolute.has_value());
  EXPECT_EQ(absolute->path, "/a");
  EXPECT_EQ(absolute->query, "b");
  EXPECT_EQ(parse_request_target("http://host")->path, "/");
  EXPECT_EQ(parse_request_target("http://host?q")->path, "/");
  EXPECT_EQ(parse_request_target("*")->path, "*");
  for (const std::string_view bad : {"", "a", "host:80", "/%", "/%4", "/%g0", "/%00", "?q"}) {
    EXPECT_FALSE(parse_request_target(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace tessera::http
