#include "server/bench/http_target.h"

#include "engine/base/text.h"
#include "server/bench/http_exchange.h"
#include "server/bench/request_body.h"

namespace tessera::bench {
namespace {

std::string post_line(const BenchSettings& settings) {
  return str_cat("POST ",
                 settings.target.base_path,
                 settings.api == Api::kChat ? "/v1/chat/completions" : "/v1/completions",
                 " HTTP/1.1");
}

}  // namespace

std::string request_head(const BenchSettings& settings, std::string_view line) {
  const TargetAddress& target = settings.target;
  const bool is_v6 = target.host.find(':') != std::string::npos;
  std::string head = str_cat(line,
                             "\r\nHost: ",
                             is_v6 ? str_cat("[", target.host, "]") : target.host,
                             ":",
                             target.port,
                             "\r\nUser-Agent: tessera-bench\r\nAccept: */*\r\n");
  if (!settings.api_key.empty()) {
    head += str_cat("Authorization: Bearer ", settings.api_key, "\r\n");
  }
  return head;
}

HttpTarget::HttpTarget(const BenchSettings& settings,
                       const boost::asio::ip::tcp::endpoint& server,
                       boost::asio::io_context& loop,
                       Counter& num_events)
    : settings_(settings),
      server_(server),
      loop_(loop),
      num_events_(num_events),
      head_(request_head(settings, post_line(settings)) +
            "Content-Type: application/json\r\nX-Request-Id: bench-") {}

std::shared_ptr<Exchange> HttpTarget::prepare(const Prompt& prompt, int64_t index) {
  const std::string body = request_body(settings_, prompt);
  std::string request = head_;
  request += std::to_string(index);
  request += "\r\nContent-Length: ";
  request += std::to_string(body.size());
  request += "\r\n\r\n";
  request += body;
  return std::make_shared<HttpExchange>(HttpExchange::Parts{.loop = loop_,
                                                            .pool = pool_,
                                                            .server = server_,
                                                            .timeout = settings_.request_timeout,
                                                            .num_events = num_events_},
                                        std::move(request));
}

}  // namespace tessera::bench
