"""The papers that model cards cite."""

CEN_2025 = {
    "title": "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
    "id": "2410.14655",
    "citation": (
        "@article{cen2025bridging,\n"
        "    title   = {{Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens}},\n"
        "    author  = {Cen, Zhepeng and Liu, Yao and Zeng, Siliang and Chaudhari, Pratik and Rangwala, Huzefa and "
        "Karypis, George and Fakoor, Rasool},\n"
        "    journal = {Transactions on Machine Learning Research},\n"
        "    year    = 2025\n"
        "}"
    ),
}
