#include "server/bench/settings.h"

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

BenchSettings valid() {
  BenchSettings settings;
  settings.arrivals.rate = 5.0;
  settings.num_requests = 10;
  return settings;
}

TEST(ParseTargetTest, ReadsSchemeHostPortAndPath) {
  const TargetAddress target = parse_target("http://example.org:8000/api/v1/").value();
  EXPECT_EQ(target.protocol, Protocol::kHttp);
  EXPECT_EQ(target.host, "example.org");
  EXPECT_EQ(target.port, 8000);
  EXPECT_EQ(target.base_path, "/api");
}

TEST(ParseTargetTest, FillsInWhatIsLeftOut) {
  EXPECT_EQ(parse_target("localhost:8000").value().protocol, Protocol::kHttp);
  EXPECT_EQ(parse_target("http://h").value().port, 80);
  EXPECT_EQ(parse_target("grpc://h").value().port, 9000);
  EXPECT_EQ(parse_target("grpc://h:9001").value().protocol, Protocol::kGrpc);
  EXPECT_EQ(parse_target("http://h:1/v1").value().base_path, "");
}

TEST(ParseTargetTest, ReadsIpv6InBrackets) {
  const TargetAddress target = parse_target("http://[::1]:8000").value();
  EXPECT_EQ(target.host, "::1");
  EXPECT_EQ(target.port, 8000);
}

TEST(ParseTargetTest, TlsIsRefusedByName) {
  for (const char* url : {"https://h:443", "grpcs://h:9000"}) {
    const Status status = parse_target(url).status();
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented) << url;
    EXPECT_NE(status.message().find("TLS"), std::string::npos) << url;
  }
}

TEST(ParseTargetTest, NonsenseIsRefused) {
  for (const char* url : {"",
                          "http://",
                          "ftp://h:1",
                          "http://h:0",
                          "http://h:99999",
                          "http://h:x",
                          "grpc://h:1/path",
                          "http://a b:1",
                          "http://[::1:80",
                          "http://u@h:1"}) {
    EXPECT_FALSE(parse_target(url).is_ok()) << url;
  }
}

TEST(ParseGoodputTest, ReadsEachLimit) {
  const GoodputLimits limits = parse_goodput({"ttft:500", "tpot:50.5"}).value();
  EXPECT_EQ(limits.ttft_ms, 500.0);
  EXPECT_EQ(limits.tpot_ms, 50.5);
  EXPECT_FALSE(limits.e2el_ms.has_value());
  EXPECT_FALSE(parse_goodput({}).value().are_any_set());
  for (const char* text : {"ttft", "ttft:", "ttft:-1", "itl:5", "ttft:5ms", "ttft:nan"}) {
    EXPECT_FALSE(parse_goodput({text}).is_ok()) << text;
  }
}

TEST(ValidateTest, AcceptsAPlainRate) {
  EXPECT_TRUE(validate(valid()).is_ok());
}

TEST(ValidateTest, NamesEveryFault) {
  BenchSettings settings = valid();
  settings.num_requests = 0;
  settings.arrivals.rate = 0.0;
  settings.cancel_share = 2.0;
  settings.data.kind = DataKind::kJsonl;
  const std::string message = validate(settings).message();
  for (const char* part : {"--requests", "--rate", "--cancel-share", "--data-file"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part;
  }
}

TEST(ValidateTest, ClosedLoopNeedsItsConcurrency) {
  BenchSettings settings = valid();
  settings.arrivals.kind = ArrivalKind::kClosed;
  EXPECT_FALSE(validate(settings).is_ok());
  settings.max_concurrency = 3;
  EXPECT_TRUE(validate(settings).is_ok());
  settings.num_threads = 4;
  EXPECT_FALSE(validate(settings).is_ok());
}

TEST(ValidateTest, TraceNeedsATrace) {
  BenchSettings settings = valid();
  settings.arrivals.kind = ArrivalKind::kTrace;
  EXPECT_FALSE(validate(settings).is_ok());
}

}  // namespace
}  // namespace tessera::bench
