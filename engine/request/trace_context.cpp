#include "engine/request/trace_context.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cinttypes>
#include <cstdio>

#include "engine/request/generation_request.h"

namespace tessera {
namespace {

constexpr size_t kLength = 55;  // of version 00: "00-" trace "-" span "-" flags

/// Lower case only, as the standard has it.
template <typename Value>
bool parse_hex(std::string_view text, Value& value) {
  const bool is_lower = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  const char* end = text.data() + text.size();
  return is_lower && std::from_chars(text.data(), end, value, 16).ptr == end;
}

/// Later versions may go on after what version 00 has.
bool has_known_shape(std::string_view text) {
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return false;
  }
  uint8_t version = 0;
  if (!parse_hex(text.substr(0, 2), version) || version == 0xff) {
    return false;
  }
  return text.size() == kLength || (version != 0 && text[kLength] == '-');
}

}  // namespace

std::optional<TraceContext> TraceContext::parse(std::string_view traceparent) {
  TraceContext context;
  const bool is_read = has_known_shape(traceparent) &&
                       parse_hex(traceparent.substr(3, 16), context.trace_high) &&
                       parse_hex(traceparent.substr(19, 16), context.trace_low) &&
                       parse_hex(traceparent.substr(36, 16), context.span) &&
                       parse_hex(traceparent.substr(53, 2), context.flags);
  return is_read && context.is_valid() ? std::optional(context) : std::nullopt;
}

TraceContext TraceContext::random() {
  const RequestId trace = RequestId::random();
  return TraceContext{trace.high, trace.low | 1, 0, 0}.child();
}

TraceContext TraceContext::parse_or_random(std::string_view traceparent) {
  const auto context = parse(traceparent);
  return context.has_value() ? *context : random();
}

TraceContext TraceContext::child() const {
  TraceContext context = *this;
  context.span = RequestId::random().low | 1;  // never 0
  return context;
}

std::string TraceContext::trace_id() const {
  return RequestId{trace_high, trace_low}.to_string();
}

std::string TraceContext::traceparent() const {
  std::array<char, 24> rest{};
  (void)std::snprintf(
      rest.data(), rest.size(), "-%016" PRIx64 "-%02x", span, static_cast<unsigned>(flags));
  return "00-" + trace_id() + rest.data();
}

}  // namespace tessera
