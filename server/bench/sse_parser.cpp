#include "server/bench/sse_parser.h"

#include <utility>

namespace tessera::bench {
namespace {

constexpr std::string_view kData = "data:";

}  // namespace

bool SseParser::feed(std::string_view bytes, SseSink& sink) {
  bool is_taken = true;
  size_t begin = 0;
  size_t end = bytes.find('\n');
  if (!line_.empty() && end != std::string_view::npos) {
    is_taken = end_kept_line(bytes.substr(0, end), sink);
    begin = end + 1;
    end = bytes.find('\n', begin);
  }
  for (; is_taken && end != std::string_view::npos; end = bytes.find('\n', begin)) {
    is_taken = take_line(bytes.substr(begin, end - begin), sink);
    begin = end + 1;
  }
  line_ += bytes.substr(begin);
  data_ += pending_;
  pending_ = {};
  return is_taken && line_.size() <= kMaxEventBytes && data_.size() <= kMaxEventBytes;
}

bool SseParser::end_kept_line(std::string_view rest, SseSink& sink) {
  line_ += rest;
  const std::string line = std::move(line_);
  line_.clear();
  const bool is_taken = take_line(line, sink);
  data_ += pending_;  // it lies in `line`
  pending_ = {};
  return is_taken;
}

bool SseParser::take_line(std::string_view line, SseSink& sink) {
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  if (line.empty()) {
    if (has_data_) {
      sink.on_event(data_.empty() ? pending_ : std::string_view(data_));
    }
    has_data_ = false;
    pending_ = {};
    data_.clear();
    return true;
  }
  if (!line.starts_with(kData)) {
    return true;
  }
  line.remove_prefix(kData.size());
  if (line.starts_with(' ')) {
    line.remove_prefix(1);
  }
  if (!has_data_) {
    has_data_ = true;
    pending_ = line;
    return true;
  }
  // A second line of one event; the format joins them by line feeds.
  data_ += pending_;
  pending_ = {};
  data_ += '\n';
  data_ += line;
  return data_.size() <= kMaxEventBytes;
}

}  // namespace tessera::bench
