#include "engine/request/trace_context.h"

#include <string>

#include <gtest/gtest.h>

namespace tessera {
namespace {

// The example of the standard.
constexpr const char* kExample = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContextTest, ReadsAndWritesTheHeader) {
  const auto context = TraceContext::parse(kExample);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_high, 0x4bf92f3577b34da6U);
  EXPECT_EQ(context->trace_low, 0xa3ce929d0e0e4736U);
  EXPECT_EQ(context->span, 0x00f067aa0ba902b7U);
  EXPECT_EQ(context->flags, 1);
  EXPECT_EQ(context->trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->traceparent(), kExample);
}

TEST(TraceContextTest, RefusesWhatTheStandardRefuses) {
  const std::string bad[] = {
      "",
      "00",
      std::string(kExample) + "-00",                               // too long for version 00
      std::string(kExample).substr(0, 54),                         // too short
      "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",   // no version
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",   // upper case
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",   // no trace
      "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",   // no span
      "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",   // not hexadecimal
      "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",   // a sign
      "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",   // not a dash
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n",  // a control character
      "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",  // goes on without a dash
  };
  for (const std::string& text : bad) {
    EXPECT_FALSE(TraceContext::parse(text).has_value()) << text;
  }
}

TEST(TraceContextTest, TakesLaterVersionsByTheirBeginning) {
  const auto context = TraceContext::parse("01" + std::string(kExample).substr(2) + "-more");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->traceparent(), kExample) << "passed on as version 00";
}

TEST(TraceContextTest, KeepsTraceAndFlagsButNotTheSpanFromRoleToRole) {
  const TraceContext context = TraceContext::parse(kExample).value();
  const TraceContext child = context.child();
  EXPECT_EQ(child.trace_id(), context.trace_id());
  EXPECT_EQ(child.flags, context.flags);
  EXPECT_NE(child.span, context.span);
  EXPECT_TRUE(child.is_valid());
}

TEST(TraceContextTest, BeginsATraceWhereNoneIsGiven) {
  EXPECT_EQ(TraceContext::parse_or_random(kExample), TraceContext::parse(kExample));
  const TraceContext one = TraceContext::parse_or_random("");
  const TraceContext other = TraceContext::parse_or_random("nonsense");
  EXPECT_TRUE(one.is_valid());
  EXPECT_NE(one.trace_id(), other.trace_id());
  EXPECT_EQ(one.flags, 0);
  EXPECT_FALSE(TraceContext().is_valid());
}

}  // namespace
}  // namespace tessera
