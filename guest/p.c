int guest_placeholder;
